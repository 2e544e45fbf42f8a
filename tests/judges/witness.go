// A witness of logs by the text of C2SP tlog-witness: add-checkpoint, and the read for monitors.
//
// In scope: cosignature/v1 with Ed25519, one state folder, logs that are named by their keys, and a few ways to be a bad witness that a log
// must live with. Out of scope: sign-subtree, ML-DSA-44, bastions, TLS, and limits on who may ask.

package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// The longest request: the largest note that Claviger reads, and the proof.
const maxRequest = 1<<20 + 64*64

// The ways to be a witness. Only the first follows the specification.
const (
	modeHonest       = "honest"
	modeBadSignature = "bad-signature" // answers with a cosignature of another text
	modeNoTime       = "no-time"       // answers with a cosignature of the time zero
	modeUnavailable  = "unavailable"   // answers 503 to everything
	modeSilent       = "silent"        // takes requests and never answers
)

// witness cosigns what is consistent with what it cosigned before.
type witness struct {
	keys map[string][]note.Verifier // by origin
	key  *cosigner
	now  func() uint64
	mode string

	// Held from the look at the newest checkpoint until the next one is on the disk: the specification wants the two to be one step.
	lock   sync.Mutex
	memory *memory
}

// refusal is a response that is not 200.
type refusal struct {
	status      int
	contentType string
	body        string
}

func refuse(status int, format string, values ...any) *refusal {
	return &refusal{status, "text/plain; charset=utf-8", fmt.Sprintf(format, values...) + "\n"}
}

func witnessCommand(args []string, stdin io.Reader, stdout io.Writer) error {
	flags := flag.NewFlagSet("witness", flag.ContinueOnError)
	keys := keyFlag(flags, "log", "the `vkey` of a log, which is called like its origin; may repeat")
	listen := flags.String("listen", "127.0.0.1:0", "where to listen")
	name := flags.String("name", "", "the witness's name")
	folder := flags.String("state", "", "the folder of its key and its memory; made if it is missing")
	fixed := flags.Uint64("time", 0, "the time of every cosignature, in seconds since 1970, instead of the clock's")
	mode := flags.String("mode", modeHonest, "honest, bad-signature, no-time, unavailable or silent")
	if err := parseFlags(flags, args); err != nil {
		return err
	}
	modes := []string{modeHonest, modeBadSignature, modeNoTime, modeUnavailable, modeSilent}
	if flags.NArg() != 0 || !isKeyName(*name) || *folder == "" || len(*keys) == 0 || !slices.Contains(modes, *mode) {
		return usageError{errors.New(usage)}
	}
	memory, err := openMemory(*folder)
	if err != nil {
		return usageError{err}
	}
	key, err := memory.cosigner(*name)
	if err != nil {
		return usageError{err}
	}
	w := &witness{keys: map[string][]note.Verifier{}, key: key, mode: *mode, memory: memory}
	w.now = func() uint64 {
		if *fixed != 0 {
			return *fixed
		}
		return uint64(time.Now().Unix())
	}
	for _, key := range *keys {
		w.keys[key.Name()] = append(w.keys[key.Name()], key)
	}
	listener, err := net.Listen("tcp", *listen)
	if err != nil {
		return usageError{err}
	}
	if err := printLine(stdout, map[string]string{"address": listener.Addr().String(), "vkey": key.vkey()}); err != nil {
		return err
	}
	return w.serve(listener, stdin)
}

// serve answers until SIGTERM or the end of standard input.
func (w *witness) serve(listener net.Listener, stdin io.Reader) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	routes := http.NewServeMux()
	routes.HandleFunc("POST /add-checkpoint", w.addCheckpoint)
	routes.HandleFunc("GET /{hash}/checkpoint", w.newest)
	server := &http.Server{Handler: w.misbehave(ctx, routes), ReadHeaderTimeout: 10 * time.Second}
	go func() {
		io.Copy(io.Discard, stdin)
		stop()
	}()
	go func() {
		<-ctx.Done()
		server.Close()
	}()
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return usageError{err}
	}
	return nil
}

// misbehave stands before the routes in the modes that never reach them.
func (w *witness) misbehave(ctx context.Context, routes http.Handler) http.Handler {
	return http.HandlerFunc(func(response http.ResponseWriter, request *http.Request) {
		switch w.mode {
		case modeUnavailable:
			refuse(http.StatusServiceUnavailable, "not now").write(response)
		case modeSilent:
			io.Copy(io.Discard, io.LimitReader(request.Body, maxRequest))
			select {
			case <-ctx.Done():
			case <-request.Context().Done():
			}
		default:
			routes.ServeHTTP(response, request)
		}
	})
}

func (r *refusal) write(response http.ResponseWriter) {
	response.Header().Set("Content-Type", r.contentType)
	response.WriteHeader(r.status)
	io.WriteString(response, r.body)
}

func (w *witness) addCheckpoint(response http.ResponseWriter, request *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(response, request.Body, maxRequest))
	if err != nil {
		refuse(http.StatusBadRequest, "reading the request: %v", err).write(response)
		return
	}
	lines, refused := w.decide(body)
	if refused != nil {
		refused.write(response)
		return
	}
	response.Header().Set("Content-Type", "text/plain; charset=utf-8")
	io.WriteString(response, lines)
}

// decide gives the signature lines for a request, in the order of the specification's paragraphs.
func (w *witness) decide(body []byte) (string, *refusal) {
	oldSize, proof, message, err := parseRequest(body)
	if err != nil {
		return "", refuse(http.StatusBadRequest, "%v", err)
	}
	origin, _, _ := strings.Cut(string(message), "\n")
	keys, known := w.keys[origin]
	if !known {
		return "", refuse(http.StatusNotFound, "the log %q is not known here", origin)
	}
	submitted, text, refused := openSubmitted(message, keys)
	if refused != nil {
		return "", refused
	}
	size := uint64(submitted.Size)
	if oldSize > size {
		return "", refuse(http.StatusBadRequest, "the old size %d is larger than the checkpoint's %d", oldSize, size)
	}

	w.lock.Lock()
	defer w.lock.Unlock()
	latest, err := w.memory.latest(origin)
	if err != nil {
		return "", refuse(http.StatusInternalServerError, "%v", err)
	}
	if oldSize != latest.size {
		return "", &refusal{http.StatusConflict, "text/x.tlog.size", fmt.Sprintf("%d\n", latest.size)}
	}
	if err := checkGrowth(latest, submitted.tree, proof); err != nil {
		return "", refuse(http.StatusUnprocessableEntity, "%v", err)
	}
	line := w.cosign(text)
	// The commit point: what was cosigned is on the disk before anyone hears of it.
	if err := w.memory.persist(origin, withLine(message, keys, line)); err != nil {
		return "", refuse(http.StatusInternalServerError, "%v", err)
	}
	return line, nil
}

func parseRequest(body []byte) (oldSize uint64, proof []tlog.Hash, message []byte, err error) {
	head, message, found := bytes.Cut(body, []byte("\n\n"))
	if !found {
		return 0, nil, nil, errors.New("no empty line before the checkpoint")
	}
	lines := strings.Split(string(head), "\n")
	digits, found := strings.CutPrefix(lines[0], "old ")
	if !found {
		return 0, nil, nil, errors.New("the first line is not an old size")
	}
	if oldSize, err = parseDecimal(digits); err != nil {
		return 0, nil, nil, fmt.Errorf("the old size: %v", err)
	}
	proof, err = parseHashLines(lines[1:])
	return oldSize, proof, message, err
}

// openSubmitted gives the checkpoint and the text that was signed. sumdb/note passes over a second signature by the same key; the
// specification wants each one to verify, so each line is opened alone as well.
func openSubmitted(message []byte, keys []note.Verifier) (*checkpoint, []byte, *refusal) {
	verifiers := note.VerifierList(keys...)
	opened, err := note.Open(message, verifiers)
	var unsigned *note.UnverifiedNoteError
	var invalid *note.InvalidSignatureError
	switch {
	case errors.As(err, &unsigned) || errors.As(err, &invalid):
		return nil, nil, refuse(http.StatusForbidden, "%v", err)
	case err != nil:
		return nil, nil, refuse(http.StatusBadRequest, "%v", err)
	}
	lines := strings.SplitAfter(string(message[len(opened.Text)+1:]), "\n")
	for _, line := range lines[:len(lines)-1] {
		if _, err := note.Open([]byte(opened.Text+"\n"+line), verifiers); errors.As(err, &invalid) {
			return nil, nil, refuse(http.StatusForbidden, "%v", err)
		}
	}
	submitted, err := openCheckpoint(message, keys)
	if err == nil && uint64(submitted.Size) > maxSize {
		err = errTooLarge
	}
	if err != nil {
		return nil, nil, refuse(http.StatusBadRequest, "%v", err)
	}
	return submitted, []byte(opened.Text), nil
}

// checkGrowth says whether a tree continues what was cosigned last.
func checkGrowth(latest remembered, submitted tlog.Tree, proof []tlog.Hash) error {
	emptyRoot := tlog.Hash(sha256.Sum256(nil))
	switch {
	case submitted.N == 0 && submitted.Hash != emptyRoot:
		return errors.New("a log without records has another root")
	case latest.size == 0 && len(proof) != 0:
		return errors.New("every tree is consistent with the empty one, without a proof")
	case latest.size == 0:
		return nil
	default:
		return checkTree(proof, latest.size, latest.root, uint64(submitted.N), submitted.Hash)
	}
}

// cosign gives the signature line over the text of a checkpoint.
func (w *witness) cosign(text []byte) string {
	switch w.mode {
	case modeBadSignature:
		return w.key.line(w.now(), append([]byte("not "), text...))
	case modeNoTime:
		return w.key.line(0, text)
	default:
		return w.key.line(w.now(), text)
	}
}

// withLine is the note that monitors are given: the log's own signatures and the cosignature, and no stranger's.
func withLine(message []byte, keys []note.Verifier, line string) []byte {
	opened, err := note.Open(message, note.VerifierList(keys...))
	if err != nil {
		panic(err) // it was opened before
	}
	kept := bytes.NewBufferString(opened.Text + "\n")
	for _, signature := range opened.Sigs {
		fmt.Fprintf(kept, "— %s %s\n", signature.Name, signature.Base64)
	}
	kept.WriteString(line)
	return kept.Bytes()
}

// newest answers monitors.
func (w *witness) newest(response http.ResponseWriter, request *http.Request) {
	w.lock.Lock()
	defer w.lock.Unlock()
	for origin := range w.keys {
		hash := sha256.Sum256([]byte(origin))
		if request.PathValue("hash") != hex.EncodeToString(hash[:]) {
			continue
		}
		latest, err := w.memory.latest(origin)
		if err != nil {
			refuse(http.StatusInternalServerError, "%v", err).write(response)
			return
		}
		if latest.note != nil {
			response.Header().Set("Content-Type", "text/plain; charset=utf-8")
			response.Write(latest.note)
			return
		}
	}
	refuse(http.StatusNotFound, "no checkpoint of such a log was ever cosigned here").write(response)
}
