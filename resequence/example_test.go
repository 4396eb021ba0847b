package resequence_test

import (
	"fmt"

	"seriatim/resequence"
)

func Example() {
	w := resequence.New[string](resequence.Limits{Records: 16384, Bytes: 128 << 20})
	for _, record := range []string{"a", "b", "c"} {
		_, slot, err := w.Admit(int64(len(record)))
		if err != nil {
			fmt.Println(err) // full: wait until something is freed
			return
		}
		*slot = record
	}

	for _, finished := range []resequence.Seq{2, 0, 1} {
		if err := w.Complete(finished, 0); err != nil {
			fmt.Println(err)
		}
		fmt.Printf("completed %d, released:", finished)
		for {
			_, slot, ok := w.Release()
			if !ok {
				break
			}
			fmt.Print(" ", *slot)
		}
		fmt.Println()
	}

	fmt.Println("held:", w.Len())
	if err := w.Free(w.Next()); err != nil { // when all is settled
		fmt.Println(err)
	}
	fmt.Println("held:", w.Len())
	// Output:
	// completed 2, released:
	// completed 0, released: a
	// completed 1, released: b c
	// held: 3
	// held: 0
}
