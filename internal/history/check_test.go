package history

import (
	"flag"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

var seed = flag.Uint64("seed", 1, "seed of the stories")

// kinds are the kinds of run that there are.
func kinds() map[string]Options {
	base := Options{Partitions: 3, DeadPartitions: 2, Topic: "t.in", Group: "g", Attempts: 5, Lateness: time.Hour}
	exact, calm, crashes, zombies := base, base, base, base
	exact.ExactlyOnce, exact.Unclean = true, 5
	crashes.Unclean = 5
	zombies.Unclean, zombies.Zombies = 5, true
	return map[string]Options{"exactly once": exact, "at least once, no crash": calm, "at least once": crashes, "at least once, with zombies": zombies}
}

// TestKeptPromises judges runs in which nothing is wrong.
func TestKeptPromises(t *testing.T) {
	t.Logf("seed %d", *seed)
	for name, opts := range kinds() {
		t.Run(name, func(t *testing.T) {
			repeats := 0
			for i := range uint64(20) {
				s := tell(*seed+i, opts, i%2 == 1)
				v, err := s.verdict()
				if err != nil {
					t.Fatal(err)
				}
				if !v.Green() {
					t.Fatalf("seed %d: %v", *seed+i, &v)
				}
				repeats += v.Repeats
			}
			if crashes := opts.Unclean > 0 && !opts.ExactlyOnce; (repeats > 0) != crashes {
				t.Errorf("%d outputs are repeated in all", repeats)
			}
		})
	}
}

// A breach is one thing that goes wrong in a story. It reports whether it found a
// place for it.
type breach struct {
	rules []Rule // one of which must be found broken
	in    func(Options) bool
	do    func(*story) bool
}

func anywhere(Options) bool       { return true }
func exact(o Options) bool        { return o.ExactlyOnce }
func withoutCrash(o Options) bool { return !o.ExactlyOnce && o.Unclean == 0 }
func withoutZombie(o Options) bool {
	return !o.ExactlyOnce && !o.Zombies
}

// each calls f with a sink's list and the index of a record that has the class,
// from a random one on, until f reports true.
func (s *story) each(sink Sink, f func(list *[]*kgo.Record, i int) bool) bool {
	start := s.rand.IntN(100)
	for n := range 100 {
		for p := range s.sinks[sink] {
			list := &s.sinks[sink][p]
			if len(*list) > 0 && f(list, (start+n)%len(*list)) {
				return true
			}
		}
	}
	return false
}

// cut removes the i-th record and moves those after it up.
func cut(list *[]*kgo.Record, i int) { *list = slices.Delete(slices.Clone(*list), i, i+1) }

// once reports whether the record of an output appears in one place alone.
func (s *story) once(list []*kgo.Record, i int) bool {
	id := string(list[i].Headers[0].Value)
	n := 0
	for _, r := range list {
		if string(r.Headers[0].Value) == id {
			n++
		}
	}
	return n == 1
}

func (s *story) required(r *kgo.Record) bool {
	o, _ := s.work.identify(r)
	return slices.ContainsFunc(s.input[o.Partition], func(in *kgo.Record) bool { return string(in.Headers[0].Value) == string(r.Headers[0].Value) })
}

func (s *story) change(f func(*kgo.Record) bool) bool {
	return s.each(Outputs, func(list *[]*kgo.Record, i int) bool {
		changed := *(*list)[i]
		changed.Headers = slices.Clone(changed.Headers)
		if !f(&changed) {
			return false
		}
		(*list)[i] = &changed
		return true
	})
}

var breaches = map[string]breach{
	"an output is lost": {[]Rule{NoLoss, NotTorn, InOrder}, anywhere, func(s *story) bool {
		return s.each(Outputs, func(list *[]*kgo.Record, i int) bool {
			if !s.once(*list, i) || !s.required((*list)[i]) {
				return false
			}
			cut(list, i)
			return true
		})
	}},
	"the last output is lost": {[]Rule{NoLoss, NotTorn, InOrder}, anywhere, func(s *story) bool {
		list := &s.sinks[Outputs][0]
		last := len(*list) - 1
		if !s.once(*list, last) {
			return false
		}
		cut(list, last)
		return true
	}},
	"a dead letter is lost": {[]Rule{NoLoss, InOrder}, anywhere, func(s *story) bool {
		return s.each(DeadLetters, func(list *[]*kgo.Record, i int) bool {
			if !s.once(*list, i) || !s.required((*list)[i]) {
				return false
			}
			cut(list, i)
			return true
		})
	}},
	"one of several outputs is lost": {[]Rule{NotTorn}, exact, func(s *story) bool {
		return s.each(Outputs, func(list *[]*kgo.Record, i int) bool {
			if o, _ := s.work.identify((*list)[i]); s.work.Class(o) != Several {
				return false
			}
			cut(list, i)
			return true
		})
	}},
	"an output is visible twice": {[]Rule{NoRepeat}, exact, func(s *story) bool {
		return s.each(Outputs, func(list *[]*kgo.Record, i int) bool {
			s.append(Outputs, func() *kgo.Record { r := *(*list)[i]; return &r }())
			return true
		})
	}},
	"a dead letter is visible twice": {[]Rule{NoRepeat}, exact, func(s *story) bool {
		return s.each(DeadLetters, func(list *[]*kgo.Record, i int) bool {
			r := *(*list)[i]
			s.append(DeadLetters, &r)
			return true
		})
	}},
	"a repeat without a crash": {[]Rule{BoundedRepeats}, withoutCrash, func(s *story) bool {
		list := s.sinks[Outputs][0]
		r := *list[len(list)-1]
		s.append(Outputs, &r)
		return true
	}},
	"a repeat of what was committed": {[]Rule{BoundedRepeats}, withoutZombie, func(s *story) bool {
		r := *s.sinks[Outputs][0][0]
		s.append(Outputs, &r)
		return s.required(&r)
	}},
	"two have changed places": {[]Rule{InOrder}, anywhere, func(s *story) bool {
		return s.each(Outputs, func(list *[]*kgo.Record, i int) bool {
			if i+1 >= len(*list) || !s.once(*list, i) || !s.once(*list, i+1) || !s.required((*list)[i]) {
				return false
			}
			*list = slices.Clone(*list)
			a, b := *(*list)[i], *(*list)[i+1]
			a.Offset, b.Offset = b.Offset, a.Offset
			(*list)[i], (*list)[i+1] = &b, &a
			return true
		})
	}},
	"ahead after a step back": {[]Rule{InOrder}, withoutZombie, func(s *story) bool {
		return s.each(Outputs, func(list *[]*kgo.Record, i int) bool {
			if i < 2 || !s.required((*list)[i-2]) || !s.required((*list)[i-1]) || !s.required((*list)[i]) {
				return false
			}
			a, _ := s.work.identify((*list)[i-2])
			b, _ := s.work.identify((*list)[i-1])
			c, _ := s.work.identify((*list)[i])
			if a.Seq >= b.Seq || b.Seq >= c.Seq {
				return false
			}
			// i-2 i-1 i becomes i-2 i-1 i i-2 i.
			*list = append((*list)[:i+1:i+1], append([]*kgo.Record{(*list)[i-2], (*list)[i]}, (*list)[i+1:]...)...)
			return true
		})
	}},
	"something comes of an aborted record": {[]Rule{NoAborted}, anywhere, func(s *story) bool {
		for seq, fate := range s.fates[0] {
			o := Origin{0, int64(seq)}
			if fate == Aborted && s.work.Outputs(o) == 1 {
				in := s.work.Record(o)
				in.Topic = s.opts.Topic
				s.append(Outputs, s.output(in, 1, 1))
				return true
			}
		}
		return false
	}},
	"something comes of a filtered record": {[]Rule{OneOutcome}, anywhere, func(s *story) bool {
		for _, in := range s.input[0] {
			if o, _ := s.work.identify(in); s.work.Class(o) == Filtered {
				s.append(Outputs, s.output(in, 1, 1))
				return true
			}
		}
		return false
	}},
	"a good record is a dead letter": {[]Rule{OneOutcome}, anywhere, func(s *story) bool {
		for _, in := range s.input[0] {
			if o, _ := s.work.identify(in); s.work.Class(o) == Echo {
				s.append(DeadLetters, s.letter(in, o))
				return true
			}
		}
		return false
	}},
	"a value has changed": {[]Rule{Intact}, anywhere, func(s *story) bool {
		return s.change(func(r *kgo.Record) bool {
			if len(r.Value) == 0 {
				return false
			}
			r.Value = slices.Clone(r.Value)
			r.Value[len(r.Value)/2]++
			return true
		})
	}},
	"a tombstone is empty": {[]Rule{Intact}, anywhere, func(s *story) bool {
		return s.change(func(r *kgo.Record) bool {
			null := r.Value == nil
			r.Value = []byte{}
			return null
		})
	}},
	"a key has changed": {[]Rule{Intact}, anywhere, func(s *story) bool {
		return s.change(func(r *kgo.Record) bool {
			r.Key = append(slices.Clone(r.Key), 'x')
			return true
		})
	}},
	"a timestamp has changed": {[]Rule{Intact}, anywhere, func(s *story) bool {
		return s.change(func(r *kgo.Record) bool {
			r.Timestamp = r.Timestamp.Add(time.Millisecond)
			return true
		})
	}},
	"a header is lost": {[]Rule{Intact}, anywhere, func(s *story) bool {
		return s.change(func(r *kgo.Record) bool {
			if len(r.Headers) < 10 {
				return false
			}
			r.Headers = slices.Delete(r.Headers, 5, 6)
			return true
		})
	}},
	"the source is not told": {[]Rule{Intact}, anywhere, func(s *story) bool {
		return s.change(func(r *kgo.Record) bool {
			one := len(r.Headers) == 2
			r.Headers = r.Headers[:1]
			return one
		})
	}},
	"the source is told wrongly": {[]Rule{Intact}, anywhere, func(s *story) bool {
		return s.change(func(r *kgo.Record) bool {
			last := &r.Headers[len(r.Headers)-1]
			last.Value = append(slices.Clone(last.Value), '0')
			return last.Key == "seriatim.source" && s.required(r)
		})
	}},
	"a dead letter does not tell its attempts": {[]Rule{Intact}, anywhere, func(s *story) bool {
		return s.each(DeadLetters, func(list *[]*kgo.Record, i int) bool {
			r := *(*list)[i]
			r.Headers = slices.DeleteFunc(slices.Clone(r.Headers), func(h kgo.RecordHeader) bool { return h.Key == "__dlq.errors.delivery.count" })
			(*list)[i] = &r
			return true
		})
	}},
	"an output in the wrong partition": {[]Rule{InOrder}, anywhere, func(s *story) bool {
		return s.change(func(r *kgo.Record) bool {
			r.Partition = (r.Partition + 1) % int32(s.opts.Partitions)
			return true
		})
	}},
	"a record of another run": {[]Rule{Intact}, anywhere, func(s *story) bool {
		return s.change(func(r *kgo.Record) bool {
			r.Headers[0].Value = []byte(strings.Replace(string(r.Headers[0].Value), "r/", "q/", 1))
			return true
		})
	}},
	"a commit before its output": {[]Rule{CommitBehind}, anywhere, func(s *story) bool {
		for i := range s.samples {
			if at := &s.samples[i]; at.Committed[1] < s.end.LogEnd[1] && at.Ends[Outputs][1] < int64(len(s.sinks[Outputs][1]))/2 {
				for k := i; k < len(s.samples); k++ { // so that it never moves back
					s.samples[k].Committed[1] = s.end.LogEnd[1]
				}
				return true
			}
		}
		return false
	}},
	"a commit before its dead letter": {[]Rule{CommitBehind}, anywhere, func(s *story) bool {
		for i := range s.samples {
			if at := &s.samples[i]; at.Committed[0] == s.end.LogEnd[0] {
				for _, r := range s.sinks[DeadLetters][0] {
					if o, _ := s.work.identify(r); o.Partition == 0 && s.required(r) {
						at.Ends[DeadLetters][0] = r.Offset
						return s.once(s.sinks[DeadLetters][0], int(r.Offset))
					}
				}
			}
		}
		return false
	}},
	"a commit that moves back": {[]Rule{CommitForward}, anywhere, func(s *story) bool {
		last := s.samples[len(s.samples)-1]
		last.Committed = slices.Clone(last.Committed)
		last.Committed[2]--
		s.samples = append(s.samples, last)
		return true
	}},
	"the last commit is missing": {[]Rule{Final}, anywhere, func(s *story) bool {
		s.end.Committed[1]--
		return true
	}},
	"a commit beyond the end": {[]Rule{Final}, anywhere, func(s *story) bool {
		s.end.Committed[1]++
		return true
	}},
	"a transaction is open": {[]Rule{Final}, exact, func(s *story) bool {
		s.end.Open = []string{"g-i1"}
		return true
	}},
	"readers are blocked": {[]Rule{Final}, exact, func(s *story) bool {
		s.end.High[Outputs][2]++
		return true
	}},
}

// TestBrokenPromises breaks one thing in a run that was right.
func TestBrokenPromises(t *testing.T) {
	t.Logf("seed %d", *seed)
	for name, breach := range breaches {
		t.Run(name, func(t *testing.T) {
			for kind, opts := range kinds() {
				if !breach.in(opts) {
					continue
				}
				tried := 0
				for i := uint64(0); tried < 6; i++ {
					if i == 1000 {
						t.Fatalf("%s: no place for it", kind)
					}
					s := tell(*seed+i, opts, i%2 == 1)
					if !breach.do(s) {
						continue
					}
					tried++
					v, err := s.verdict()
					if err != nil {
						t.Fatal(err)
					}
					if !slices.ContainsFunc(breach.rules, func(r Rule) bool { return v.Faults[r] > 0 }) {
						t.Fatalf("%s, seed %d: want %v broken: %v", kind, *seed+i, breach.rules, &v)
					}
				}
			}
		})
	}
}

func TestRecordsAreDeterministic(t *testing.T) {
	w := &Workload{Run: "r", Seed: *seed, Start: time.Now(), Keys: 10}
	for c := range w.Mix {
		w.Mix[c] = 1
	}
	seen := make(map[Class]bool)
	for seq := range int64(300) {
		o := Origin{3, seq}
		a, b := w.Record(o), w.Record(o)
		if fmt.Sprint(a) != fmt.Sprint(b) {
			t.Fatalf("seed %d: %v is not always the same", *seed, o)
		}
		if got, err := w.identify(a); err != nil || got != o {
			t.Fatalf("seed %d: %v has the identity %v, %v", *seed, o, got, err)
		}
		seen[w.Class(o)] = true
	}
	if len(seen) != int(classes) {
		t.Errorf("seed %d: only the classes %v have come", *seed, seen)
	}
	for _, bad := range []string{"", "r/1/2", "q/3/0/echo", "r/x/0/echo", "r/3/x/echo", "r/-1/0/echo", "r/3/0/none"} {
		if o, err := w.Parse(bad); err == nil {
			t.Errorf("%q is %v, want an error", bad, o)
		}
	}
}
