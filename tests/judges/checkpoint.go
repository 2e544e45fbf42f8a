// The judge of checkpoints: opens the note with sumdb/note and reads the tree with tlog.
//
// In scope: C2SP tlog-checkpoint as far as tlog.ParseTree goes. Out of scope: extension lines, which tlog passes over, and what cosigners
// are worth.

package main

import (
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// The origin of the one log that tlog.ParseTree was written for; it takes the place of any other origin.
const sumdbOrigin = "go.sum database tree"

// checkpoint is what a log states about itself.
type checkpoint struct {
	Origin string `json:"origin"`
	Size   int64  `json:"size"`
	Root   string `json:"root"`
	tree   tlog.Tree
}

func checkpointCommand(args []string, stdout io.Writer) error {
	flags := flag.NewFlagSet("checkpoint", flag.ContinueOnError)
	keys := keyFlag(flags, "key", "a trusted `vkey`; may repeat")
	if err := parseFlags(flags, args); err != nil {
		return err
	}
	if flags.NArg() != 1 {
		return usageError{errors.New(usage)}
	}
	message, err := readFile(flags.Arg(0))
	if err != nil {
		return err
	}
	opened, err := openCheckpoint(message, *keys)
	if err != nil {
		return err
	}
	return printLine(stdout, opened)
}

// openCheckpoint verifies a note and takes the checkpoint out of it. One of keys that is called like the origin, and is no cosigner's, must
// have signed it.
func openCheckpoint(message []byte, keys []note.Verifier) (*checkpoint, error) {
	opened, err := note.Open(message, note.VerifierList(keys...))
	if err != nil {
		return nil, err
	}
	origin, rest, _ := strings.Cut(opened.Text, "\n")
	if origin == "" {
		return nil, errors.New("the origin is empty")
	}
	tree, err := tlog.ParseTree([]byte(sumdbOrigin + "\n" + rest))
	if err != nil {
		return nil, err
	}
	if !signedByLog(opened, origin, keys) {
		return nil, fmt.Errorf("no key of the log %q signed", origin)
	}
	return &checkpoint{Origin: origin, Size: tree.N, Root: hex.EncodeToString(tree.Hash[:]), tree: tree}, nil
}

func signedByLog(opened *note.Note, origin string, keys []note.Verifier) bool {
	for _, signature := range opened.Sigs {
		for _, key := range keys {
			own, known := key.(*verifier)
			isLogs := key.Name() == origin && !(known && own.cosigner)
			if isLogs && signature.Name == key.Name() && signature.Hash == key.KeyHash() {
				return true
			}
		}
	}
	return false
}
