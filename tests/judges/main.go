// Judges says what the Go checksum database's own libraries (golang.org/x/mod/sumdb/note and tlog) make of Claviger's notes, checkpoints
// and proofs, and is a witness of its logs. Not one line of it is shared with Claviger.
//
// In scope: what C2SP signed-note, tlog-checkpoint, tlog-proof, tlog-cosignature and tlog-witness specify. Out of scope: the lines of a log
// (tests of the package claviger-audit), tiles (Tessera's fsck, in the folder beside this one), and any use outside of tests.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
)

// Exit codes: a judgement is one of the first two; the third is none.
const (
	exitAccepted = 0
	exitRefused  = 1
	exitUsage    = 2
)

const usage = `usage:
  judges checkpoint  -key VKEY... FILE
  judges inclusion   -key VKEY... [-record FILE] FILE.tlog-proof
  judges consistency -old SIZE:ROOT -new SIZE:ROOT [HASH...]
  judges batch       (questions on standard input, one JSON object a line; verdicts on standard output)
  judges witness     -name NAME -state DIR -log VKEY... [-listen ADDRESS] [-time SECONDS] [-mode MODE]
Roots and hashes are hexadecimal. Exit: 0 accepted, 1 refused, 2 no judgement.`

// usageError is whatever keeps a judge from judging; it must never pass for a refusal.
type usageError struct{ error }

func main() {
	err := run(os.Args[1:], os.Stdin, os.Stdout)
	var noJudgement usageError
	switch {
	case err == nil:
		os.Exit(exitAccepted)
	case errors.As(err, &noJudgement):
		fmt.Fprintln(os.Stderr, "judges:", err)
		os.Exit(exitUsage)
	default:
		fmt.Fprintln(os.Stderr, "judges: refused:", err)
		os.Exit(exitRefused)
	}
}

func run(args []string, stdin io.Reader, stdout io.Writer) error {
	if len(args) == 0 {
		return usageError{errors.New(usage)}
	}
	switch command, args := args[0], args[1:]; command {
	case "checkpoint":
		return checkpointCommand(args, stdout)
	case "inclusion":
		return inclusionCommand(args, stdout)
	case "consistency":
		return consistencyCommand(args, stdout)
	case "batch":
		return batchCommand(args, stdin, stdout)
	case "witness":
		return witnessCommand(args, stdin, stdout)
	default:
		return usageError{fmt.Errorf("no such judge: %s\n%s", command, usage)}
	}
}

// printLine writes a value as one line of JSON.
func printLine(w io.Writer, value any) error {
	if err := json.NewEncoder(w).Encode(value); err != nil {
		return usageError{err}
	}
	return nil
}

// readFile reads a file that the command line names.
func readFile(name string) ([]byte, error) {
	content, err := os.ReadFile(name)
	if err != nil {
		return nil, usageError{err}
	}
	return content, nil
}
