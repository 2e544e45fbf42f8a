// Many questions to one process: a JSON object a line in, a verdict a line out, in order.
//
// In scope: the questions of the other judges, and whether a text is a verifier key. Out of scope: guessing. A question that is not well
// formed ends the process without a verdict, so that it cannot pass for a refusal.

package main

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// The longest question in bytes: a note of a mebibyte in base64, and room for the rest.
const maxQuestion = 4 << 20

// question is one line; which members it has depends on its kind.
type question struct {
	Kind string `json:"kind"`
	// key: a verifier key. note, checkpoint, proof: the keys to trust.
	Key  string   `json:"key"`
	Keys []string `json:"keys"`
	// note, checkpoint, proof: the whole file, in base64. proof, leaf: the record, in base64.
	File   []byte `json:"file"`
	Record []byte `json:"record"`
	// record: is this leaf in this tree? tree: did the tree of the old size grow into this one?
	Proof   []hexHash `json:"proof"`
	Size    uint64    `json:"size"`
	Root    hexHash   `json:"root"`
	Index   uint64    `json:"index"`
	Leaf    hexHash   `json:"leaf"`
	Old     uint64    `json:"old"`
	OldRoot hexHash   `json:"old_root"`
}

// hexHash is a hash that JSON holds as hexadecimal digits.
type hexHash tlog.Hash

func (h *hexHash) UnmarshalText(text []byte) error {
	hash, err := parseHex(string(text))
	*h = hexHash(hash)
	return err
}

// verdict is the answer; a refusal has an error.
type verdict struct {
	Ok      bool     `json:"ok"`
	Error   string   `json:"error,omitempty"`
	Origin  string   `json:"origin,omitempty"`
	Size    int64    `json:"size,omitempty"`
	Root    string   `json:"root,omitempty"`
	Signers []string `json:"signers,omitempty"`
}

func batchCommand(args []string, stdin io.Reader, stdout io.Writer) error {
	if len(args) != 0 {
		return usageError{errors.New(usage)}
	}
	lines := bufio.NewScanner(stdin)
	lines.Buffer(nil, maxQuestion)
	for lines.Scan() {
		answer, err := judge(lines.Bytes())
		if err != nil {
			return usageError{err}
		}
		if err := printLine(stdout, answer); err != nil {
			return err
		}
	}
	if err := lines.Err(); err != nil {
		return usageError{err}
	}
	return nil
}

// judge answers one question; its error is that of a question that cannot be answered.
func judge(line []byte) (verdict, error) {
	var q question
	decoder := json.NewDecoder(bytes.NewReader(line))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&q); err != nil {
		return verdict{}, fmt.Errorf("not a question: %v", err)
	}
	keys := make([]note.Verifier, 0, len(q.Keys))
	for _, vkey := range q.Keys {
		key, err := newVerifier(vkey)
		if err != nil {
			return verdict{}, fmt.Errorf("the key %s: %v", vkey, err)
		}
		keys = append(keys, key)
	}
	var answer verdict
	var refusal error
	switch q.Kind {
	case "key":
		_, refusal = newVerifier(q.Key)
	case "note":
		var opened *note.Note
		if opened, refusal = note.Open(q.File, note.VerifierList(keys...)); refusal == nil {
			for _, signature := range opened.Sigs {
				answer.Signers = append(answer.Signers, fmt.Sprintf("%s+%08x", signature.Name, signature.Hash))
			}
		}
	case "checkpoint":
		var opened *checkpoint
		opened, refusal = openCheckpoint(q.File, keys)
		answer.state(opened)
	case "proof":
		var opened *checkpoint
		opened, _, refusal = judgeProofFile(q.File, q.Record, keys)
		answer.state(opened)
	case "record":
		refusal = checkRecord(hashes(q.Proof), q.Size, tlog.Hash(q.Root), q.Index, tlog.Hash(q.Leaf))
	case "tree":
		refusal = checkTree(hashes(q.Proof), q.Old, tlog.Hash(q.OldRoot), q.Size, tlog.Hash(q.Root))
	case "leaf":
		leaf := tlog.RecordHash(q.Record)
		answer.Root = hex.EncodeToString(leaf[:])
	default:
		return verdict{}, fmt.Errorf("no such kind of question: %q", q.Kind)
	}
	answer.Ok = refusal == nil
	if refusal != nil {
		answer.Error = refusal.Error()
	}
	return answer, nil
}

func (v *verdict) state(opened *checkpoint) {
	if opened != nil {
		v.Origin, v.Size, v.Root = opened.Origin, opened.Size, opened.Root
	}
}

func hashes(proof []hexHash) []tlog.Hash {
	converted := make([]tlog.Hash, len(proof))
	for i, hash := range proof {
		converted[i] = tlog.Hash(hash)
	}
	return converted
}
