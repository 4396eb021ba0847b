package conductor

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"seriatim/internal/history"
)

// Action is what a step does.
type Action string

// The actions. Instances and brokers are what they were before when a step is
// over: running, and in touch.
const (
	Kill   Action = "kill"   // kill -9; started again after Time
	Stop   Action = "stop"   // SIGTERM; started again Time after it has ended
	Freeze Action = "freeze" // SIGSTOP, for Time
	Cut    Action = "cut"    // an instance's connections, for Time
	Stall  Action = "stall"  // they stay open and nothing passes, for Time
	Delay  Action = "delay"  // each piece by 5 to 100 ms, for Time
	HoldUp Action = "hold"   // requests arrive after the connection was cut; Time is both
	Move   Action = "move"   // leaders of all topics, and with them coordinators
	Refuse Action = "refuse" // a right of the instances is taken away, for Time
)

// A Step is one thing that happens.
type Step struct {
	At time.Duration // since the load began
	// Whom names an instance (i1, i2, …), a broker (n1, n2, …), the cluster, a
	// right (see rights), or workers: a process that is at work then.
	Whom string
	Do   Action
	Time time.Duration
}

func (s Step) String() string {
	return fmt.Sprintf("%6.1fs %s %s %v", s.At.Seconds(), s.Do, s.Whom, s.Time.Round(10*time.Millisecond))
}

// Protocol is how instances are members of their group.
type Protocol string

// The protocols.
const (
	Classic  Protocol = "classic"
	Static   Protocol = "static"   // classic, with group.instance.id
	Consumer Protocol = "consumer" // KIP-848
)

// A Plan says what load there is and what happens.
type Plan struct {
	Name     string
	Seed     uint64
	Length   time.Duration
	Protocol Protocol

	Instances int
	Rate      int // records a second
	Mix       history.Mix
	Keys      int
	Compacted bool
	// Of a hundred batches of input, how many are produced in transactions that are
	// committed, and in ones that are aborted.
	Committed, Aborted int
	Workers            int
	Service            Service
	State              bool          // instances have a state topic, with a reply log
	Attempts           int           // retry.attempts
	RetryBudget        string        // retry.budget
	Hedge              time.Duration // hedge.after
	Hangs              int           // of a thousand records, whose first call is not answered in time
	Window             int           // records of a partition

	Steps []Step // in the order of At
}

// Instances and brokers that there are at most.
const (
	maxInstances = 8
	brokers      = 3
)

// everyday is the usual mix of classes.
var everyday = history.Mix{
	history.Echo: 700, history.Filtered: 60, history.Several: 60, history.Slow: 12, history.Flaky: 30, history.Rejected: 4,
	history.Exhausted: 2, history.Large: 2, history.Tombstone: 30, history.Empty: 10, history.NullKey: 40, history.ManyHeaders: 20,
}

// A script makes the steps of a plan.
type script struct {
	*rand.Rand
	plan *Plan
}

// Plans are the plans by name.
var plans = map[string]func(*script){
	"kills":     kills,
	"rolling":   rolling,
	"freeze":    freeze,
	"storm":     storm,
	"brokers":   brokerFaults,
	"slow":      slow,
	"gaps":      gaps,
	"poison":    poison,
	"mix":       everything,
	"network":   network,
	"late":      late,
	"rights":    refusals,
	"crash":     crash,
	"recovery":  recovery,
	"workers":   workers,
	"processes": processes,
}

// PlanNames are the names of all plans, sorted.
func PlanNames() []string {
	var names []string
	for name := range plans {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// NewPlan returns the plan of that name and seed.
func NewPlan(name string, seed uint64, length time.Duration) (*Plan, error) {
	write := plans[name]
	if write == nil {
		return nil, fmt.Errorf("there is no plan %q; there are %s", name, strings.Join(PlanNames(), ", "))
	}
	var h uint64
	for _, c := range name {
		h = h*31 + uint64(c)
	}
	p := &Plan{
		Name: name, Seed: seed, Length: length,
		Protocol:  [...]Protocol{Classic, Static, Consumer}[seed%3],
		Instances: 4, Rate: 800, Mix: everyday, Keys: 200,
		Committed: 20, Aborted: 5, Workers: 64, Window: 1024, Attempts: 5, RetryBudget: "20%",
	}
	write(&script{rand.New(rand.NewPCG(seed, h)), p})
	slices.SortStableFunc(p.Steps, func(a, b Step) int { return int(a.At - b.At) })
	return p, nil
}

// between returns a random time.
func (s *script) between(low, high time.Duration) time.Duration {
	return low + time.Duration(s.Int64N(int64(high-low)))
}

// warmUp is how long a run is left alone, so that there is something to disturb.
const warmUp = 4 * time.Second

// each calls do at random times, low to high apart.
func (s *script) each(low, high time.Duration, do func(at time.Duration)) {
	for at := warmUp + s.between(0, low); at < s.plan.Length; at += s.between(low, high) {
		do(at)
	}
}

func (s *script) add(at time.Duration, whom string, do Action, t time.Duration) {
	if at < s.plan.Length {
		s.plan.Steps = append(s.plan.Steps, Step{at, whom, do, t})
	}
}

func (s *script) instance() string { return fmt.Sprintf("i%d", 1+s.IntN(s.plan.Instances)) }
func (s *script) broker() string   { return fmt.Sprintf("n%d", 1+s.IntN(brokers)) }

// Sessions last 6 s, and a group without static members waits for those of the
// dead: kills come in volleys, with time for a new generation between.
func (s *script) volleys() {
	low, high := 6*time.Second, 9*time.Second
	if s.plan.Protocol == Static {
		low, high = 3*time.Second, 6*time.Second
	}
	s.each(low, high, func(at time.Duration) {
		for range 1 + s.IntN(3) {
			s.add(at, s.instance(), Kill, s.between(0, 3*time.Second))
			at += s.between(0, 1500*time.Millisecond)
		}
	})
}

func kills(s *script) { s.volleys() }

// crash kills as often as instances start: static members need no new generation.
func crash(s *script) {
	s.plan.Protocol = Static
	s.each(700*time.Millisecond, 1500*time.Millisecond, func(at time.Duration) {
		s.add(at, s.instance(), Kill, s.between(0, 300*time.Millisecond))
	})
}

// recovery kills one at a time, so that it can be seen when its partitions go on.
func recovery(s *script) {
	s.each(14*time.Second, 16*time.Second, func(at time.Duration) {
		s.add(at, s.instance(), Kill, s.between(0, 3*time.Second))
	})
}

func rolling(s *script) {
	i := 0
	s.each(2500*time.Millisecond, 4500*time.Millisecond, func(at time.Duration) {
		i++
		s.add(at, fmt.Sprintf("i%d", 1+i%s.plan.Instances), Stop, s.between(0, time.Second))
	})
}

func freeze(s *script) {
	s.each(4*time.Second, 8*time.Second, func(at time.Duration) {
		t := s.between(7*time.Second, 12*time.Second)
		if s.IntN(4) == 0 {
			t = s.between(16*time.Second, 20*time.Second) // beyond the transaction timeout
		}
		s.add(at, s.instance(), Freeze, t)
	})
	s.each(15*time.Second, 25*time.Second, func(at time.Duration) {
		s.add(at, s.instance(), Kill, s.between(0, 2*time.Second))
	})
}

func storm(s *script) {
	s.plan.Instances = maxInstances
	s.each(700*time.Millisecond, 2500*time.Millisecond, func(at time.Duration) {
		do := Stop
		if s.IntN(4) == 0 {
			do = Kill
		}
		s.add(at, s.instance(), do, s.between(0, 6*time.Second))
	})
}

func (s *script) brokerFaults(low, high time.Duration) {
	s.each(low, high, func(at time.Duration) {
		switch s.IntN(6) {
		case 0:
			s.add(at, s.broker(), Stop, s.between(0, 2*time.Second))
		case 1:
			s.add(at, s.broker(), Freeze, s.between(3*time.Second, 9*time.Second))
		default:
			s.add(at, s.broker(), Kill, s.between(0, 3*time.Second))
		}
	})
	s.each(8*time.Second, 14*time.Second, func(at time.Duration) { s.add(at, "cluster", Move, 0) })
}

func brokerFaults(s *script) {
	s.brokerFaults(4*time.Second, 8*time.Second)
	s.each(15*time.Second, 25*time.Second, func(at time.Duration) {
		s.add(at, s.instance(), Kill, s.between(0, 2*time.Second))
	})
}

func slow(s *script) {
	s.plan.Workers, s.plan.Window, s.plan.Rate = 256, 256, 700
	s.plan.Mix[history.Slow] = 1200
	s.each(6*time.Second, 10*time.Second, func(at time.Duration) {
		s.add(at, s.instance(), Stop, s.between(0, 2*time.Second))
	})
	s.each(9*time.Second, 16*time.Second, func(at time.Duration) {
		s.add(at, s.instance(), Kill, s.between(0, 2*time.Second))
	})
}

func gaps(s *script) {
	s.plan.Committed, s.plan.Aborted = 40, 40
	s.plan.Compacted = s.IntN(2) == 0
	s.plan.Keys = 500
	s.volleys()
}

func poison(s *script) {
	s.plan.Mix[history.Rejected], s.plan.Mix[history.Exhausted], s.plan.Mix[history.Flaky] = 60, 60, 200
	s.plan.Mix[history.Echo] = 400
	s.plan.RetryBudget = "100%" // of 100 first attempts 50 retries fail again: with less, retries fall behind, as they should
	s.volleys()
	s.each(10*time.Second, 15*time.Second, func(at time.Duration) {
		s.add(at, s.instance(), Stop, s.between(0, 2*time.Second))
	})
}

func (s *script) networkFaults(low, high time.Duration) {
	s.each(low, high, func(at time.Duration) {
		switch s.IntN(5) {
		case 0:
			s.add(at, s.instance(), Cut, s.between(time.Second, 9*time.Second))
		case 1:
			s.add(at, s.instance(), Stall, s.between(2*time.Second, 9*time.Second))
		case 2:
			s.add(at, s.instance(), Delay, s.between(3*time.Second, 8*time.Second))
		default:
			s.add(at, s.instance(), HoldUp, s.between(200*time.Millisecond, 4*time.Second))
		}
	})
}

func network(s *script) {
	s.networkFaults(1500*time.Millisecond, 4*time.Second)
	s.each(12*time.Second, 20*time.Second, func(at time.Duration) {
		s.add(at, s.instance(), Kill, s.between(0, 2*time.Second))
	})
}

// late has little load, so that offsets are often committed outside transactions,
// and delivers what instances send when they are past it or gone.
func late(s *script) {
	s.plan.Rate = 100
	s.each(1500*time.Millisecond, 3*time.Second, func(at time.Duration) {
		whom := s.instance()
		s.add(at, whom, HoldUp, s.between(200*time.Millisecond, 1500*time.Millisecond))
		if s.IntN(2) == 0 {
			s.add(at+time.Millisecond, whom, Kill, s.between(0, time.Second))
		}
	})
}

func refusals(s *script) {
	s.each(2*time.Second, 5*time.Second, func(at time.Duration) {
		s.add(at, rights[s.IntN(len(rights))], Refuse, s.between(100*time.Millisecond, 4*time.Second))
	})
	s.each(10*time.Second, 20*time.Second, func(at time.Duration) {
		s.add(at, s.instance(), Kill, s.between(0, 2*time.Second))
	})
}

func everything(s *script) {
	s.plan.Committed, s.plan.Aborted = 30, 15
	s.volleys()
	s.each(5*time.Second, 10*time.Second, func(at time.Duration) {
		s.add(at, s.instance(), Stop, s.between(0, 3*time.Second))
	})
	s.each(12*time.Second, 20*time.Second, func(at time.Duration) {
		s.add(at, s.instance(), Freeze, s.between(7*time.Second, 12*time.Second))
	})
	s.brokerFaults(14*time.Second, 22*time.Second)
	s.networkFaults(8*time.Second, 14*time.Second)
}

// workers has processes in Node answer over HTTP. They are killed and frozen in
// mid-record, and some calls hang.
func workers(s *script) { s.workers(NodeHTTP) }

// processes is the same with processes that instances start themselves.
func processes(s *script) { s.workers(NodeExec) }

func (s *script) workers(service Service) {
	p := s.plan
	p.Service, p.Hedge, p.Hangs = service, hedgeAfter, 10
	p.State = p.Seed%2 == 1
	p.Rate, p.Workers = 200, 16 // what workers in Node manage that ask in their turn
	// A record may be in any number of processes that are killed. So many attempts at
	// those that always fail would hold up everything.
	p.Attempts, p.Mix[history.Exhausted] = 50, 0
	s.each(time.Second, 3*time.Second, func(at time.Duration) {
		if s.IntN(3) == 0 {
			s.add(at, atWork, Freeze, s.between(time.Second, 5*time.Second))
		} else {
			s.add(at, atWork, Kill, 0)
		}
	})
	s.volleys()
}

// atWork is whom a step is about that is about workers.
const atWork = "workers"

// breaksBrokers reports whether a step is about brokers.
func (p *Plan) breaksBrokers() bool {
	return slices.ContainsFunc(p.Steps, Step.breaksBrokers)
}

// breaksBrokers reports whether a step is about brokers or about rights, which have
// the same effect.
func (s Step) breaksBrokers() bool { return s.Whom[0] != 'i' && s.Whom != atWork }

// mixes reports whether an instance may go on while others have its partitions.
func (p *Plan) mixes() bool {
	return slices.ContainsFunc(p.Steps, func(s Step) bool {
		switch s.Do {
		case Freeze, Cut, Stall, Delay, HoldUp:
			return s.Whom != atWork
		default:
			return s.breaksBrokers()
		}
	})
}

// unclean reports whether a step of the plan allows repeats.
func (p *Plan) unclean() bool {
	return p.mixes() || slices.ContainsFunc(p.Steps, func(s Step) bool { return s.Do == Kill && s.Whom != atWork })
}
