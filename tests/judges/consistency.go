// The judge of Merkle proofs: tlog.CheckRecord and tlog.CheckTree.
//
// In scope: their questions, and the limits within which tlog can answer them. Out of scope: who signed the roots.

package main

import (
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io"
	"strings"

	"golang.org/x/mod/sumdb/tlog"
)

// tlog looks for the largest power of two below a size, in signed 64-bit arithmetic that never ends above this one.
const maxSize = 1 << 62

var errTooLarge = errors.New("no tree that tlog can judge has more than 2^62 leaves")

func consistencyCommand(args []string, stdout io.Writer) error {
	flags := flag.NewFlagSet("consistency", flag.ContinueOnError)
	var oldTree, newTree tree
	flags.Func("old", "the older tree, `SIZE:ROOT`", oldTree.set)
	flags.Func("new", "the newer tree, `SIZE:ROOT`", newTree.set)
	if err := parseFlags(flags, args); err != nil {
		return err
	}
	if !oldTree.given || !newTree.given {
		return usageError{errors.New(usage)}
	}
	proof := make([]tlog.Hash, 0, flags.NArg())
	for _, digits := range flags.Args() {
		hash, err := parseHex(digits)
		if err != nil {
			return usageError{err}
		}
		proof = append(proof, hash)
	}
	if err := checkTree(proof, oldTree.size, oldTree.root, newTree.size, newTree.root); err != nil {
		return err
	}
	return printLine(stdout, map[string]uint64{"old": oldTree.size, "new": newTree.size})
}

// tree is a size and a root on the command line.
type tree struct {
	size  uint64
	root  tlog.Hash
	given bool
}

func (t *tree) set(text string) error {
	size, root, found := strings.Cut(text, ":")
	if !found {
		return errors.New("not of the form SIZE:ROOT")
	}
	var err error
	if t.size, err = parseDecimal(size); err != nil {
		return err
	}
	t.root, err = parseHex(root)
	t.given = true
	return err
}

func parseHex(text string) (tlog.Hash, error) {
	var hash tlog.Hash
	decoded, err := hex.DecodeString(text)
	if err != nil || len(decoded) != len(hash) {
		return hash, fmt.Errorf("not 64 hexadecimal digits: %q", text)
	}
	copy(hash[:], decoded)
	return hash, nil
}

func checkTree(proof []tlog.Hash, oldSize uint64, oldRoot tlog.Hash, newSize uint64, newRoot tlog.Hash) error {
	if oldSize > maxSize || newSize > maxSize {
		return errTooLarge
	}
	return tlog.CheckTree(proof, int64(newSize), newRoot, int64(oldSize), oldRoot)
}

func checkRecord(proof []tlog.Hash, size uint64, root tlog.Hash, index uint64, leaf tlog.Hash) error {
	if size > maxSize || index > maxSize {
		return errTooLarge
	}
	return tlog.CheckRecord(proof, int64(size), root, int64(index), leaf)
}
