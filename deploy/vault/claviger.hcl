# What Claviger may do in Vault or OpenBao: make, read, use and delete the transit keys of one installation, and look after its own token.
#
# It stands here for the engine mounted at transit/ and the installation "prod"; setup.sh writes it for others. A key's name is
# <installation>.<keyring>.<n>-<claim>, so that the prefix before the first dot is the border. Nothing here exports a key, backs one up,
# imports one, or makes one exportable: of the parameters of a request, only those below are taken, and only with these values.
#
# What no policy can take away from whoever may do this: rotating a key of this prefix (Claviger signs with version 1 alone, adopts no key
# that has another, and reports one that got one), signing a request for a certificate with it, and in OpenBao putting a key aside and back.

path "transit/keys/prod.*" {
  capabilities = ["create", "read", "update", "delete"]
  allowed_parameters = {
    "type"                   = ["ecdsa-p256", "ecdsa-p384", "ecdsa-p521", "ed25519", "rsa-2048"]
    "exportable"             = [false]
    "allow_plaintext_backup" = [false]
    "auto_rotate_period"     = ["0"]
    "deletion_allowed"       = [true]
  }
}

path "transit/sign/prod.*" {
  capabilities = ["update"]
  allowed_parameters = {
    "input"                = []
    "key_version"          = []
    "prehashed"            = []
    "hash_algorithm"       = ["sha2-256", "sha2-384", "sha2-512"]
    "signature_algorithm"  = ["pss", "pkcs1v15"]
    "salt_length"          = ["hash"]
    "marshaling_algorithm" = ["jws"]
  }
}

# The names of all keys of this engine, of which Claviger looks at its own prefix only: to find keys that no record names.
path "transit/keys" {
  capabilities = ["list"]
}
path "transit/keys/" {
  capabilities = ["list"]
}

path "auth/token/lookup-self" {
  capabilities = ["read"]
}
path "auth/token/renew-self" {
  capabilities = ["update"]
}

# Lets `claviger doctor` say which of the permissions above is missing.
path "sys/capabilities-self" {
  capabilities = ["update"]
}
