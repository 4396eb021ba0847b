package processor

import "testing"

func TestWhoStaysInTheGroup(t *testing.T) {
	instance := "one"
	static := func(id string, generation int32) member { return member{id, generation, &instance} }
	for _, c := range []struct {
		name        string
		before, now member
		serverSide  bool
		stays       bool
	}{
		{"nothing has changed", member{"a", 3, nil}, member{"a", 3, nil}, false, true},
		{"one rebalance", member{"a", 3, nil}, member{"a", 4, nil}, false, true},
		{"several, and it was there", member{"a", 3, nil}, member{"a", 7, nil}, false, true},
		{"thrown out, not joined yet", member{"a", 3, nil}, member{"", 3, nil}, false, false},
		{"joined again", member{"a", 3, nil}, member{"b", 5, nil}, false, false},
		{"never joined", member{}, member{}, false, false},
		{"first join", member{}, member{"a", 1, nil}, false, false},
		{"static, one rebalance", static("a", 3), static("a", 4), false, true},
		{"static, missed one", static("a", 3), static("a", 5), false, false},
		{"static, restarted", static("a", 3), static("b", 3), false, false},
		{"static, epochs of KIP-848", static("a", 3), static("a", 9), true, true},
	} {
		l := &loop{opts: &Options{Source: Source{ServerSide: c.serverSide}}, as: c.before}
		if got := l.stays(c.now); got != c.stays {
			t.Errorf("%s: stays is %v, want %v", c.name, got, c.stays)
		}
	}
}
