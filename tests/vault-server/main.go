// Command vaultd serves HashiCorp Vault's own core on one address, for tests
// alone: nobody here wrote what answers, so that our adapter is judged by it.
//
// In scope: transit, AppRole, the file audit device, seal and unseal, TLS,
// storage in a folder or in memory. Out of scope: everything else of Vault
// (other engines, its UI, its command line, clustering), and secrecy: the root
// token and the unseal key of a new storage stand in the one line of JSON that
// is printed as soon as the address is bound. On a storage that was used
// before, Vault stays sealed and the line holds the address only; PUT
// sys/unseal opens it.
//
// It ends on SIGTERM, and with -until-eof when its standard input ends: so it
// never outlives a test that was killed.
package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"flag"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/vault/audit"
	auditfile "github.com/hashicorp/vault/builtin/audit/file"
	"github.com/hashicorp/vault/builtin/credential/approle"
	"github.com/hashicorp/vault/builtin/logical/transit"
	vaulthttp "github.com/hashicorp/vault/http"
	"github.com/hashicorp/vault/internalshared/configutil"
	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/hashicorp/vault/sdk/physical"
	physfile "github.com/hashicorp/vault/sdk/physical/file"
	"github.com/hashicorp/vault/sdk/physical/inmem"
	"github.com/hashicorp/vault/vault"
)

// registry tells the core which plugins are compiled in.
type registry map[consts.PluginType]map[string]logical.Factory

func (r registry) Contains(n string, t consts.PluginType) bool { _, ok := r[t][n]; return ok }

func (r registry) Get(n string, t consts.PluginType) (func() (interface{}, error), bool) {
	f, ok := r[t][n]
	return func() (interface{}, error) { return f, nil }, ok
}

func (r registry) Keys(t consts.PluginType) (names []string) {
	for n := range r[t] {
		names = append(names, n)
	}
	return names
}

func (r registry) DeprecationStatus(n string, t consts.PluginType) (consts.DeprecationStatus, bool) {
	return consts.Supported, r.Contains(n, t)
}

func (registry) IsBuiltinEntPlugin(string, consts.PluginType) bool { return false }

func must[T any](v T, err error) T {
	check(err)
	return v
}

func check(err error) {
	if err != nil {
		hclog.Default().Error("vaultd", "error", err)
		os.Exit(1)
	}
}

func main() {
	listen := flag.String("listen", "127.0.0.1:0", "host:port; port 0 picks a free one")
	cert := flag.String("tls-cert", "", "PEM certificate; with -tls-key serves TLS")
	key := flag.String("tls-key", "", "PEM private key")
	dir := flag.String("storage", "", "directory for file storage; empty: in memory")
	level := flag.String("log-level", "warn", "log level (stderr)")
	untilEOF := flag.Bool("until-eof", false, "also end when standard input ends")
	flag.Parse()

	log := hclog.New(&hclog.LoggerOptions{Level: hclog.LevelFromString(*level), Output: os.Stderr})
	var store physical.Backend
	if *dir == "" {
		store = must(inmem.NewInmem(nil, log))
	} else {
		store = must(physfile.NewFileBackend(map[string]string{"path": *dir}, log))
	}
	builtins := registry{
		consts.PluginTypeSecrets:    {"transit": transit.Factory},
		consts.PluginTypeCredential: {"approle": approle.Factory},
	}
	core := must(vault.NewCore(&vault.CoreConfig{
		Physical:           store,
		LogicalBackends:    builtins[consts.PluginTypeSecrets],
		CredentialBackends: builtins[consts.PluginTypeCredential],
		AuditBackends:      map[string]audit.Factory{"file": auditfile.Factory},
		BuiltinRegistry:    builtins,
		DisableMlock:       true,
		Logger:             log,
	}))

	ln := must(net.Listen("tcp", *listen))
	addr, scheme := ln.Addr().String(), "http"
	if *cert != "" {
		pair := must(tls.LoadX509KeyPair(*cert, *key))
		ln = tls.NewListener(ln, &tls.Config{
			Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"},
		})
		scheme = "https"
	}
	srv := &http.Server{Handler: vaulthttp.Handler.Handler(&vault.HandlerProperties{
		Core:           core,
		ListenerConfig: &configutil.Listener{Type: "tcp", Address: addr, TLSDisable: *cert == ""},
	})}

	out := map[string]string{"address": scheme + "://" + addr}
	ctx := context.Background()
	if !must(core.Initialized(ctx)) {
		seal := &vault.SealConfig{SecretShares: 1, SecretThreshold: 1}
		res := must(core.Initialize(ctx, &vault.InitParams{BarrierConfig: seal, RecoveryConfig: seal}))
		must(core.Unseal(bytes.Clone(res.SecretShares[0])))
		out["root_token"] = res.RootToken
		out["unseal_key"] = base64.StdEncoding.EncodeToString(res.SecretShares[0])
	}
	check(json.NewEncoder(os.Stdout).Encode(out))

	var stopping atomic.Bool
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, os.Interrupt, syscall.SIGTERM)
	if *untilEOF {
		go func() {
			_, _ = io.Copy(io.Discard, os.Stdin)
			stop <- syscall.SIGTERM
		}()
	}
	done := make(chan struct{})
	go func() {
		<-stop
		stopping.Store(true)
		_ = srv.Close()
		_ = core.Shutdown()
		close(done)
	}()
	if err := srv.Serve(ln); !stopping.Load() {
		check(err)
	}
	<-done
}
