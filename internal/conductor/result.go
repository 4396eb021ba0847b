package conductor

import (
	"fmt"
	"os"
	"strings"
	"time"
)

// void says what a run should have met and has not; then it shows nothing,
// whatever its verdict.
func (r *run) void(result *Result) []string {
	var void []string
	missing := func(when bool, what string) {
		if when {
			void = append(void, what)
		}
	}
	c, v := result.Counts, result.Verdict
	planned := func(do Action, whom string) bool {
		for _, s := range r.plan.Steps {
			if s.Do == do && strings.HasPrefix(s.Whom, whom) {
				return true
			}
		}
		return false
	}
	missing(v.Records == 0, "no records")
	missing(c.Rebalances == 0, "no rebalance")
	missing(planned(Kill, "i") && c.KillsAtWork == 0, "no kill met work under way")
	missing(planned(Kill, "n") && c.BrokerKills == 0, "no broker was killed")
	missing(planned(Freeze, "i") && c.Freezes == 0, "no freeze")
	missing(r.mode == ExactlyOnce && c.Transactions == 0, "no transaction")
	missing(r.mode == ExactlyOnce && r.plan.unclean() && c.Aborted == 0, "no aborted transaction")
	missing(r.mode == AtLeastOnce && r.plan.unclean() && v.Repeats == 0, "nothing was repeated")
	missing(planned(Kill, atWork) && c.WorkerKills == 0, "no worker was killed at work")
	missing(planned(Freeze, atWork) && c.WorkerFreezes == 0, "no worker was frozen at work")
	missing(r.plan.Hangs > 0 && c.Hangs == 0, "no call has hung")
	missing(r.plan.Hedge > 0 && c.Hedges == 0, "no hedge")
	missing(r.plan.State && c.Reused == 0, "no result of the reply log was used again")
	missing(r.plan.Aborted > 0 && v.Gaps == 0, "no gap in the input")
	return void
}

// Word is the verdict in a word: green, red or void.
func (r *Result) Word() string {
	switch {
	case !r.Verdict.Green():
		return "red"
	case len(r.Void) > 0:
		return "void"
	default:
		return "green"
	}
}

// Replay is the command that carries out the same plan.
func (r *Result) Replay() string {
	return fmt.Sprintf("make chaos MODE=%s PLAN=%s SEED=%d FOR=%v", r.Mode, r.Plan.Name, r.Plan.Seed, r.Plan.Length)
}

// Coverage is what the run has met.
func (r *Result) Coverage() string {
	c := r.Counts
	text := fmt.Sprintf("%d kills (%d at work), %d stops (%d undrained), %d freezes, %d cuts, %d lost sessions, %d broker faults (%d kills), %d moves, %d refusals, %d rebalances, %d transactions (%d aborted), %d aborted copies, standstill %.1fs, readers blocked %.1fs",
		c.Kills, c.KillsAtWork, c.Stops, c.Undrained, c.Freezes, c.Cuts, c.Lost, c.BrokerFaults, c.BrokerKills, c.Moves, c.Refusals, c.Rebalances, c.Transactions, c.Aborted, c.AbortedCopies, c.Standstill.Seconds(), c.Blocked.Seconds())
	if r.Plan.Service != Own {
		text += fmt.Sprintf(", workers: %d kills, %d freezes, %d calls hung (%d late answers), %d hedges, %d results reused", c.WorkerKills, c.WorkerFreezes, c.Hangs, c.Late, c.Hedges, c.Reused)
	}
	return text
}

func (r *Result) String() string {
	text := fmt.Sprintf("%s %s seed %d (%s), %v: %s\n  %s\n  %s", r.Mode, r.Plan.Name, r.Plan.Seed, r.Plan.Protocol, r.Took.Round(time.Second), r.Word(), r.Coverage(), r.Verdict.String())
	if len(r.Void) > 0 {
		text += "\n  void: " + strings.Join(r.Void, ", ")
	}
	if !r.Verdict.Green() {
		text += "\n  logs: " + r.Dir + "\n  again: " + r.Replay()
	}
	return text
}

const ledgerHead = "date\tcommit\tmode\tplan\tseed\tgroup\tseconds\trecords\tkills\tbroker_kills\tbroker_faults\tfreezes\tstops\tcuts\trebalances\ttransactions\taborted\trepeats\tverdict\n"

// Record appends a line to a ledger.
func (r *Result) Record(ledger, commit string) error {
	file, err := os.OpenFile(ledger, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer file.Close()
	if info, err := file.Stat(); err != nil {
		return err
	} else if info.Size() == 0 {
		if _, err := file.WriteString(ledgerHead); err != nil {
			return err
		}
	}
	c := r.Counts
	_, err = fmt.Fprintf(file, "%s\t%s\t%s\t%s\t%d\t%s\t%.0f\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%s\n",
		time.Now().UTC().Format(time.RFC3339), commit, r.Mode, r.Plan.Name, r.Plan.Seed, r.Plan.Protocol, r.Plan.Length.Seconds(),
		r.Verdict.Records, c.Kills, c.BrokerKills, c.BrokerFaults, c.Freezes, c.Stops, c.Cuts, c.Rebalances, c.Transactions, c.Aborted, r.Verdict.Repeats, r.Word())
	return err
}
