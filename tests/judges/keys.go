// Verifiers of notes: sumdb/note knows Ed25519 (type 0x01) and is asked for every key but two.
//
// In scope: ECDSA P-256 (0x02, as C2SP signed-note names it) and Ed25519 cosignatures (0x04, C2SP tlog-cosignature), as implementations of
// note.Verifier. Out of scope: the other types that C2SP assigns, which sumdb/note refuses.

package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"math"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/mod/sumdb/note"
)

const (
	typeECDSA       = 0x02
	typeCosignature = 0x04
)

// verifier is a note.Verifier of a type that sumdb/note does not know.
type verifier struct {
	name     string
	hash     uint32
	cosigner bool
	verify   func(text, signature []byte) bool
}

func (v *verifier) Name() string                       { return v.name }
func (v *verifier) KeyHash() uint32                    { return v.hash }
func (v *verifier) Verify(text, signature []byte) bool { return v.verify(text, signature) }

// newVerifier reads a verifier key: <name>+<key ID>+<base64(type || key)>.
func newVerifier(vkey string) (note.Verifier, error) {
	name, rest, _ := strings.Cut(vkey, "+")
	id, encoded, _ := strings.Cut(rest, "+")
	material, err := base64.StdEncoding.Strict().DecodeString(encoded)
	if err != nil || len(material) == 0 {
		return note.NewVerifier(vkey)
	}
	var v *verifier
	switch key := material[1:]; material[0] {
	case typeECDSA:
		v, err = ecdsaVerifier(key)
	case typeCosignature:
		v, err = cosignatureVerifier(name, key)
	default:
		return note.NewVerifier(vkey)
	}
	switch {
	case err != nil:
		return nil, err
	case !isKeyName(name):
		return nil, errors.New("malformed key name")
	case id != fmt.Sprintf("%08x", v.hash):
		return nil, fmt.Errorf("the key ID is %08x, not %q", v.hash, id)
	}
	v.name = name
	return v, nil
}

// C2SP signed-note: the key ID of this type is the truncated SHA-256 of the public key in SPKI format, without name and type.
func ecdsaVerifier(spki []byte) (*verifier, error) {
	parsed, err := x509.ParsePKIXPublicKey(spki)
	if err != nil {
		return nil, err
	}
	public, ok := parsed.(*ecdsa.PublicKey)
	if !ok || public.Curve != elliptic.P256() {
		return nil, errors.New("not a P-256 key")
	}
	if again, err := x509.MarshalPKIXPublicKey(public); err != nil || !bytes.Equal(again, spki) {
		return nil, errors.New("not the one DER encoding of the key")
	}
	verify := func(text, signature []byte) bool {
		digest := sha256.Sum256(text)
		return ecdsa.VerifyASN1(public, digest[:], signature)
	}
	return &verifier{hash: truncatedHash(spki), verify: verify}, nil
}

func cosignatureVerifier(name string, key []byte) (*verifier, error) {
	if len(key) != ed25519.PublicKeySize {
		return nil, fmt.Errorf("a key of %d bytes", len(key))
	}
	verify := func(text, signature []byte) bool {
		if len(signature) != 8+ed25519.SignatureSize {
			return false
		}
		time := binary.BigEndian.Uint64(signature)
		return time <= math.MaxInt64 && ed25519.Verify(key, cosignatureMessage(time, text), signature[8:])
	}
	return &verifier{hash: cosignerHash(name, key), cosigner: true, verify: verify}, nil
}

// cosignatureMessage is what a cosigner signs (C2SP tlog-cosignature, "Ed25519 signed message").
func cosignatureMessage(time uint64, text []byte) []byte {
	return fmt.Appendf(nil, "cosignature/v1\ntime %d\n%s", time, text)
}

// cosignerHash is the key ID of an Ed25519 cosigner.
func cosignerHash(name string, key []byte) uint32 {
	return truncatedHash(append([]byte(name+"\n\x04"), key...))
}

func truncatedHash(bytes []byte) uint32 {
	sum := sha256.Sum256(bytes)
	return binary.BigEndian.Uint32(sum[:])
}

func isKeyName(name string) bool {
	forbidden := func(r rune) bool { return unicode.IsSpace(r) || r < ' ' || r == '+' }
	return name != "" && utf8.ValidString(name) && strings.IndexFunc(name, forbidden) < 0
}

// keyFlag collects the verifier keys of a flag that may repeat.
func keyFlag(flags *flag.FlagSet, name string, usage string) *[]note.Verifier {
	keys := &[]note.Verifier{}
	flags.Func(name, usage, func(vkey string) error {
		key, err := newVerifier(vkey)
		*keys = append(*keys, key)
		return err
	})
	return keys
}

// parseFlags parses arguments; what cannot be parsed is no judgement.
func parseFlags(flags *flag.FlagSet, args []string) error {
	if err := flags.Parse(args); err != nil {
		return usageError{err}
	}
	return nil
}
