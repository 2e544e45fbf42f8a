// What a witness must not forget: its key, and the newest checkpoint that it cosigned of each log.
//
// In scope: writing so that a crash leaves the old or the new, and reading it again. Out of scope: several processes on one folder.

package main

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/mod/sumdb/tlog"
)

// memory is a folder: `key`, and a cosigned note for each log, named by the SHA-256 of its origin.
type memory struct{ folder string }

// remembered is the newest cosigned checkpoint of a log; without a note, there was none.
type remembered struct {
	size uint64
	root tlog.Hash
	note []byte
}

// cosigner is the key of a witness.
type cosigner struct {
	name    string
	private ed25519.PrivateKey
}

func openMemory(folder string) (*memory, error) {
	return &memory{folder}, os.MkdirAll(folder, 0o700)
}

// cosigner gives the key that the folder holds, and makes it at first.
func (m *memory) cosigner(name string) (*cosigner, error) {
	seed, err := os.ReadFile(filepath.Join(m.folder, "key"))
	if errors.Is(err, fs.ErrNotExist) {
		seed = make([]byte, ed25519.SeedSize)
		rand.Read(seed)
		err = m.write("key", seed)
	}
	if err != nil {
		return nil, err
	}
	if len(seed) != ed25519.SeedSize {
		return nil, fmt.Errorf("the key file has %d bytes", len(seed))
	}
	return &cosigner{name, ed25519.NewKeyFromSeed(seed)}, nil
}

// latest reads what was cosigned last.
func (m *memory) latest(origin string) (remembered, error) {
	content, err := os.ReadFile(filepath.Join(m.folder, fileOf(origin)))
	if errors.Is(err, fs.ErrNotExist) {
		return remembered{}, nil
	}
	if err != nil {
		return remembered{}, err
	}
	_, rest, _ := strings.Cut(string(content), "\n")
	tree, err := tlog.ParseTree([]byte(sumdbOrigin + "\n" + rest))
	return remembered{size: uint64(tree.N), root: tree.Hash, note: content}, err
}

// persist replaces what was cosigned last. When it returns, the new note is durable.
func (m *memory) persist(origin string, note []byte) error {
	return m.write(fileOf(origin), note)
}

func fileOf(origin string) string {
	hash := sha256.Sum256([]byte(origin))
	return hex.EncodeToString(hash[:])
}

// write makes a file whole or not at all: temporary file, sync, rename, sync of the folder.
func (m *memory) write(name string, content []byte) error {
	path := filepath.Join(m.folder, name)
	file, err := os.OpenFile(path+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = file.Write(content)
	err = errors.Join(err, file.Sync(), file.Close())
	if err != nil {
		return err
	}
	if err := os.Rename(path+".new", path); err != nil {
		return err
	}
	folder, err := os.Open(m.folder)
	if err != nil {
		return err
	}
	return errors.Join(folder.Sync(), folder.Close())
}

func (c *cosigner) public() ed25519.PublicKey {
	return c.private.Public().(ed25519.PublicKey)
}

func (c *cosigner) vkey() string {
	typed := append([]byte{typeCosignature}, c.public()...)
	return fmt.Sprintf("%s+%08x+%s", c.name, cosignerHash(c.name, c.public()), base64.StdEncoding.EncodeToString(typed))
}

// line is the signature line of a cosignature over a text: key ID, time, signature.
func (c *cosigner) line(time uint64, text []byte) string {
	bytes := binary.BigEndian.AppendUint32(nil, cosignerHash(c.name, c.public()))
	bytes = binary.BigEndian.AppendUint64(bytes, time)
	bytes = append(bytes, ed25519.Sign(c.private, cosignatureMessage(time, text))...)
	return fmt.Sprintf("— %s %s\n", c.name, base64.StdEncoding.EncodeToString(bytes))
}
