// The judge of C2SP tlog-proof files: reads the file, opens its checkpoint and checks the inclusion proof with tlog.CheckRecord.
//
// In scope: the format, and a leaf that is given or that the proof's extra line holds. Out of scope: what the record says, and quorums of
// cosigners.

package main

import (
	"bytes"
	"encoding/base64"
	"errors"
	"flag"
	"fmt"
	"io"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

const proofHeader = "c2sp.org/tlog-proof@v1"

// A tree of as many leaves as tlog can count has no longer proof.
const maxProof = 63

// proofFile is a parsed tlog-proof.
type proofFile struct {
	extra      []byte
	index      uint64
	hashes     []tlog.Hash
	checkpoint []byte
}

func inclusionCommand(args []string, stdout io.Writer) error {
	flags := flag.NewFlagSet("inclusion", flag.ContinueOnError)
	keys := keyFlag(flags, "key", "a trusted `vkey`; may repeat")
	recordFile := flags.String("record", "", "the record's bytes, without a line feed; without it the extra line of the proof is the record")
	if err := parseFlags(flags, args); err != nil {
		return err
	}
	if flags.NArg() != 1 {
		return usageError{errors.New(usage)}
	}
	file, err := readFile(flags.Arg(0))
	if err != nil {
		return err
	}
	var record []byte
	if *recordFile != "" {
		if record, err = readFile(*recordFile); err != nil {
			return err
		}
	}
	opened, index, err := judgeProofFile(file, record, *keys)
	if err != nil {
		return err
	}
	return printLine(stdout, struct {
		*checkpoint
		Index uint64 `json:"index"`
	}{opened, index})
}

// judgeProofFile checks a whole proof of a record; an empty record stands for the one that the extra line holds.
func judgeProofFile(file, record []byte, keys []note.Verifier) (*checkpoint, uint64, error) {
	proof, err := parseProofFile(file)
	if err != nil {
		return nil, 0, err
	}
	if len(record) == 0 {
		record = proof.extra
	}
	if len(record) == 0 {
		return nil, 0, errors.New("neither the proof nor its reader says which record it is about")
	}
	opened, err := openCheckpoint(proof.checkpoint, keys)
	if err != nil {
		return nil, 0, err
	}
	leaf := tlog.RecordHash(record)
	if err := checkRecord(proof.hashes, uint64(opened.Size), opened.tree.Hash, proof.index, leaf); err != nil {
		return nil, 0, err
	}
	return opened, proof.index, nil
}

func parseProofFile(file []byte) (*proofFile, error) {
	head, checkpoint, found := bytes.Cut(file, []byte("\n\n"))
	if !found {
		return nil, errors.New("no empty line before the checkpoint")
	}
	lines := strings.Split(string(head), "\n")
	if lines[0] != proofHeader {
		return nil, fmt.Errorf("the first line is not %s", proofHeader)
	}
	lines = lines[1:]
	proof := &proofFile{checkpoint: checkpoint}
	var err error
	if len(lines) > 0 {
		if encoded, found := strings.CutPrefix(lines[0], "extra "); found {
			if proof.extra, err = base64.StdEncoding.Strict().DecodeString(encoded); err != nil {
				return nil, fmt.Errorf("the extra line: %v", err)
			}
			lines = lines[1:]
		}
	}
	if len(lines) == 0 {
		return nil, errors.New("no index line")
	}
	digits, found := strings.CutPrefix(lines[0], "index ")
	if !found {
		return nil, errors.New("no index line")
	}
	if proof.index, err = parseDecimal(digits); err != nil {
		return nil, fmt.Errorf("the index: %v", err)
	}
	proof.hashes, err = parseHashLines(lines[1:])
	return proof, err
}

// parseDecimal reads an ASCII decimal number without sign or leading zeroes.
func parseDecimal(text string) (uint64, error) {
	number, err := strconv.ParseUint(text, 10, 64)
	if err == nil && strconv.FormatUint(number, 10) != text {
		err = errors.New("not the one decimal form of the number")
	}
	return number, err
}

// parseHashLines reads hashes in base64, each spelt in the one way that RFC 4648 section 4 gives it.
func parseHashLines(lines []string) ([]tlog.Hash, error) {
	if len(lines) > maxProof {
		return nil, errors.New("more than 63 hashes")
	}
	hashes := make([]tlog.Hash, 0, len(lines))
	for _, line := range lines {
		hash, err := tlog.ParseHash(line)
		if err != nil || hash.String() != line {
			return nil, errors.New("a proof line is not a hash in base64")
		}
		hashes = append(hashes, hash)
	}
	return hashes, nil
}
