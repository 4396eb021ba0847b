package processor

import (
	"sync"
	"testing"
	"testing/synctest"
)

// A revoke that comes while the poller ends does not wait for another poll, which
// there will not be. The moment is short, so it is tried often.
func TestRevokeWhileThePollerEnds(t *testing.T) {
	synctest.Test(t, func(*testing.T) { // ends the test when all wait for ever
		for range 100_000 {
			var revokes sync.WaitGroup
			p := new(poller)
			p.pass(func() {})
			for range 8 {
				revokes.Go(p.flush)
			}
			p.end()
			revokes.Wait()
		}
	})
}
