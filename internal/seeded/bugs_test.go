package seeded

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// A bug is a mistake and the test that sees it.
type bug struct {
	name  string
	says  string
	layer layer
	test  string
}

// A layer is a place where tests run, the cheapest first.
type layer struct {
	name string
	pkg  string
	tags string
	args []string // so that a test gives up soon
}

var (
	window  = layer{"unit", "resequence", "seededbugs", nil}
	tracker = layer{"unit", "offsets", "seededbugs", nil}
	memory  = layer{"unit", "internal/journal", "seededbugs", nil}
	unit    = layer{"unit", "processor", "seededbugs", nil}
	calls   = layer{"unit", "transform", "seededbugs", nil}
	broker  = layer{"broker in the process", "processor", "seededbugs", []string{"-patience", "10s"}}
	virtual = layer{"virtual time", "processor", "seededbugs synctests", []string{"-test.timeout", "20s"}}
)

var bugs = []bug{
	{"release-unfinished", "a record leaves the window before it is finished", window, "TestReleaseFollowsAdmissionOrder"},
	{"window-unlimited", "a full window takes more records", window, "TestLimitsRefuseRecords"},
	{"commit-highest", "the frontier is one past the highest settled record, whatever is open before it", tracker, "TestTrackerAgreesWithTheModel"},
	{"frontier-off-by-one", "the frontier is one record too far", tracker, "TestFrontierIsOnePastTheSettledPrefix"},
	{"first-commit-missing", "nothing is committed right after an assignment", tracker, "TestWhenCommitsBegin"},
	{"slow-partition-starves", "a partition with slow transforms gets as many turns as others, and in time every worker", unit, "TestHangingPartitionStarvesNobody"},
	{"hanging-partition-keeps-workers", "a partition whose transforms hang keeps every worker until they time out", virtual, "TestHangingPartitionGivesWorkersBack"},
	{"stuck-head-takes-all", "a partition whose head is stuck goes on taking shared memory", unit, "TestBudgetGuaranteesEachPartitionItsPart"},
	{"older-generation-wins", "what an owner writes after it has lost its partition counts", memory, "TestMemory"},
	{"tombstone-lost", "an output without a value gets an empty one", calls, "TestPassKeepsTheRecord"},
	{"batch-answer-by-place", "the answers to a batch are taken in their order, not by their ids", calls, "TestBatchAnswers"},
	{"key-changes-with-attempts", "each attempt has an idempotency key of its own", broker, "TestIdempotencyKeyIsTheSameAtEveryAttempt"},
	{"panic-filters", "a transform that panics has filtered its record", virtual, "TestExhaustedRecordStopsItsPartition"},
	{"attempt-before-its-count", "an attempt begins before the state topic has its count", virtual, "TestRefusedCounts"},
	{"stored-reply-filters", "a result that was stored is taken for none", virtual, "TestReplyLog"},
	{"retry-of-another-record", "the timer of a retry reads the memory of its attempt, which is in use again", broker, "TestFailedRecordsAreAttemptedAgain"},
	{"outage-uses-attempts-up", "attempts count while the worker's deployment is wrong", virtual, "TestOutagePausesDispatchAndProbes"},
	{"spill-dropped", "what the window has no room for is forgotten", virtual, "TestFullWindowPausesItsPartitionAlone"},
	{"control-dispatched", "control records of transactions are transformed", broker, "TestCommittedReachesTheEndBehindTransactions"},
	{"aborted-records-read", "records of aborted transactions are read", broker, "TestCommittedReachesTheEndBehindTransactions"},
	{"pause-outlives-tenure", "a partition that was paused when it went stays paused when it comes back", virtual, "TestPauseEndsWithItsTenure"},
	{"poll-not-flushed", "records that were polled before a revoke reach the next tenure", virtual, "TestPolledRecordsNeverReachALaterTenure"},
	{"tenure-outlives-membership", "what a member has of its partitions is committed in its new name after the group went on without it", virtual, "TestMemberThatJoinsTooLate"},
	{"claims-outlive-membership", "a member that the group went on without claims the partitions it had, beside those who have them now", virtual, "TestMemberThatJoinsTooLateClaimsNothing"},
	{"late-result-accepted", "a result that comes after its tenure is taken for the next one", virtual, "TestLateResultAfterLoss"},
	{"attempts-not-cancelled", "attempts run on after their tenure", virtual, "TestDrainCancelsAttemptsAtItsDeadline"},
	{"drain-without-deadline", "a drain waits for everything that runs", virtual, "TestLateResultAfterRevoke"},
	{"revoke-without-commit", "a revoke drops what runs and commits nothing", virtual, "TestDrainedRebalancesKeepOrderAndRepeatNothing"},
	{"revoke-answered-early", "a revoke is answered before its drain is over, and its commit comes after", virtual, "TestCleanDrainRepeatsNothing"},
	{"commit-not-awaited", "a revoke does not wait for the commit in flight", virtual, "TestRevokeWaitsForTheCommitInFlight"},
	{"commit-polled", "what was polled is committed", virtual, "TestStuckHeadIsCommittedOnEveryTick"},
	{"ticks-only-on-progress", "a tick commits only what has moved", virtual, "TestStuckHeadIsCommittedOnEveryTick"},
	{"commit-with-metadata", "commits carry metadata", virtual, "TestStuckHeadIsCommittedOnEveryTick"},
	{"settled-before-ack", "an output counts as settled when the producer has it", virtual, "TestRefusedOutputsHoldTheirPartitionAlone"},
	{"first-ack-settles", "a record with several outputs is settled by the first that is acknowledged", virtual, "TestPartlyRefusedRecord"},
	{"refusal-overtaken", "outputs that are handed over between a refusal and the news of it are sent", unit, "TestLane"},
	{"filtered-never-settles", "the frontier does not pass a record without outputs", virtual, "TestRefusedOutputsHoldTheirPartitionAlone"},
	{"dead-letter-not-awaited", "a record is settled before its dead letter is acknowledged", virtual, "TestDeadLettersAreAwaited"},
	{"commit-beside-transaction", "offsets are committed while a transaction with outputs holds some", virtual, "TestNoCommitBesideATransaction"},
	{"commit-outside-of-transactions", "exactly once, a tick without outputs is a plain commit", virtual, "TestLateCommitDoesNotPutTheGroupBack"},
	{"transaction-commits-polled", "a transaction commits what was polled", virtual, "TestExactlyOnceUnderChurn"},
	{"commit-despite-refusal", "a transaction is committed although an output was refused", virtual, "TestRefusalDuringTheEndAborts"},
	{"unknown-end-is-a-commit", "a transaction whose end failed counts as committed", broker, "TestExactlyOnceSurvivesFaults/end:_abortable"},
	{"aborted-outputs-forgotten", "what an aborted transaction had is not emitted again", broker, "TestExactlyOnceSurvivesFaults/end:_abortable"},
	{"committed-outputs-emitted-again", "what a transaction of unknown outcome has committed is emitted again", virtual, "TestLostAnswerToTheEnd"},
	{"late-extend-accepted", "an attempt that is over gets more time", calls, "TestTerm"},
	{"callback-outlives-its-attempt", "the address of an attempt is good when that is over", calls, "TestCallbacks"},
	{"late-note-kept", "what an attempt notes when it is over is kept", broker, "TestNotesReachTheNextAttempt"},
	{"held-output-overtaken", "outputs behind one that is held are emitted", broker, "TestOutputThatIsHeld"},
	{"retry-budget-drops", "a retry that is beyond the budget is forgotten", virtual, "TestRetryBudget"},
	{"transaction-of-a-lost-tenure", "a transaction commits for partitions that went to others", virtual, "TestTransactionOfALostTenureIsNotCommittedByTheNext"},
}

const (
	root      = "../.."
	page      = root + "/docs/promises.md"
	tableHead = "<!-- seeded bugs: written by make seeded -->\n\n| Mistake | What goes wrong | Caught by | Seconds |\n|---|---|---|---|\n"
	tableEnd  = "\n<!-- end of seeded bugs -->"
)

// row is the line of the table about a bug, but for the seconds.
func (b bug) row() string {
	test, _, _ := strings.Cut(b.test, "/")
	return fmt.Sprintf("| `%s` | %s | %s: `%s` |", b.name, b.says, b.layer.name, test)
}

// Each mistake is made somewhere, and none that nobody knows of.
func TestBugsAreMade(t *testing.T) {
	var made []string
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && path != root && strings.HasPrefix(entry.Name(), "."):
			return filepath.SkipDir
		case filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_test.go"):
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		ast.Inspect(file, func(n ast.Node) bool {
			if name, ok := bugOf(n); ok {
				made = append(made, name)
			}
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	var known []string
	for _, b := range bugs {
		known = append(known, b.name)
	}
	slices.Sort(made)
	slices.Sort(known)
	if !slices.Equal(made, known) {
		t.Errorf("made in the code are %q, listed are %q", made, known)
	}
}

// bugOf returns the name in a call of seeded.Bug.
func bugOf(n ast.Node) (string, bool) {
	call, ok := n.(*ast.CallExpr)
	if !ok || len(call.Args) != 1 {
		return "", false
	}
	fun, ok := call.Fun.(*ast.SelectorExpr)
	if !ok || fun.Sel.Name != "Bug" {
		return "", false
	}
	if in, ok := fun.X.(*ast.Ident); !ok || in.Name != "seeded" {
		return "", false
	}
	arg, ok := call.Args[0].(*ast.BasicLit)
	if !ok {
		return "", false
	}
	name, err := strconv.Unquote(arg.Value)
	return name, err == nil
}

// The table tells of all of them.
func TestTableOfBugs(t *testing.T) {
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := bytes.Cut(text, []byte(tableHead))
	table, _, ok := bytes.Cut(table, []byte(tableEnd))
	if !ok {
		t.Fatal("docs/promises.md has no table of seeded bugs")
	}
	rows := strings.Split(strings.TrimSpace(string(table)), "\n")
	if len(rows) != len(bugs) {
		t.Errorf("the table has %d rows, want %d: run make seeded", len(rows), len(bugs))
	}
	for i, row := range rows[:min(len(rows), len(bugs))] {
		if !strings.HasPrefix(row, bugs[i].row()) {
			t.Errorf("the table says\n%s\nwant\n%s\nrun make seeded", row, bugs[i].row())
		}
	}
}
