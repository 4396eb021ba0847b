package config

import "strconv"

// didYouMean returns the hint (did you mean "…"?) with the candidate that is
// nearest to what was written, or nothing if none is near.
func didYouMean(written string, candidates []string) string {
	if c := nearest(written, candidates); c != "" {
		return " (did you mean " + strconv.Quote(c) + "?)"
	}
	return ""
}

// nearest returns the candidate that takes the fewest changed letters, if they
// are at most a third of what was written and not the whole of it.
func nearest(written string, candidates []string) string {
	if len(written) > 64 {
		return ""
	}
	best, least := "", max(1, len(written)/3)+1
	for _, c := range candidates {
		if d := distance(written, c); d < least && d < len(written) {
			best, least = c, d
		}
	}
	return best
}

// distance counts the letters to insert, delete, replace or swap with their
// neighbour to make b of a.
func distance(a, b string) int {
	rows := make([][]int, len(a)+1)
	for i := range rows {
		rows[i] = make([]int, len(b)+1)
		rows[i][0] = i
	}
	for j := range rows[0] {
		rows[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			rows[i][j] = min(rows[i-1][j]+1, rows[i][j-1]+1, rows[i-1][j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				rows[i][j] = min(rows[i][j], rows[i-2][j-2]+1)
			}
		}
	}
	return rows[len(a)][len(b)]
}
