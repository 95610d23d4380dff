// Makes tokens with go-jose. One JSON line in, one out: first the names and kinds of keys to make, then one token a line. What go-jose does not
// make, or makes another way than asked, is put together by hand from its keys, and said so.
package main

import (
	"bufio"
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	_ "crypto/sha256"
	_ "crypto/sha512"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"reflect"
	"runtime/debug"
	"strings"

	"github.com/go-jose/go-jose/v4"
)

type spec struct {
	Kind string `json:"kind"`
	Size int    `json:"size"`
	Crv  string `json:"crv"`
}

// asked is a line: keys to make, or a token.
type asked struct {
	Keys    map[string]spec `json:"keys"`
	Header  string          `json:"header"`
	Payload string          `json:"payload"`
	Key     string          `json:"key"`
	Secret  *string         `json:"secret"`
	Alg     string          `json:"alg"`
	Exact   bool            `json:"exact"`
}

type shown struct {
	Private json.RawMessage `json:"private"`
	Public  json.RawMessage `json:"public"`
	Pem     string          `json:"pem"`
	Der     string          `json:"der"`
}

type keysMade struct {
	Library string           `json:"library"`
	Keys    map[string]shown `json:"keys"`
}

type tokenMade struct {
	Token string `json:"token"`
	By    string `json:"by"`
	Why   string `json:"why,omitempty"`
}

var (
	keys     = map[string]crypto.Signer{}
	encoding = base64.RawURLEncoding
)

func must[T any](value T, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}

func version() string {
	info, _ := debug.ReadBuildInfo()
	for _, module := range info.Deps {
		if strings.HasSuffix(module.Path, "go-jose/v4") {
			return "go-jose " + module.Version
		}
	}
	return "go-jose"
}

func generate(want spec) crypto.Signer {
	switch want.Kind + want.Crv {
	case "RSA":
		return must(rsa.GenerateKey(rand.Reader, want.Size))
	case "ECP-256":
		return must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	case "ECP-384":
		return must(ecdsa.GenerateKey(elliptic.P384(), rand.Reader))
	default:
		_, key, err := ed25519.GenerateKey(rand.Reader)
		return must(key, err)
	}
}

func makeKeys(wants map[string]spec) keysMade {
	made := keysMade{Library: version(), Keys: map[string]shown{}}
	for name, want := range wants {
		key := generate(want)
		keys[name] = key
		der := must(x509.MarshalPKIXPublicKey(key.Public()))
		made.Keys[name] = shown{
			Private: must(jose.JSONWebKey{Key: key}.MarshalJSON()),
			Public:  must(jose.JSONWebKey{Key: key.Public()}.MarshalJSON()),
			Pem:     string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})),
			Der:     encoding.EncodeToString(der),
		}
	}
	return made
}

func byLibrary(row asked) (string, error) {
	if row.Exact {
		return "", errors.New("it writes headers its own way")
	}
	var header map[string]any
	if err := json.Unmarshal([]byte(row.Header), &header); err != nil {
		return "", err
	}
	if header["alg"] != row.Alg {
		return "", errors.New("it signs as its header says")
	}
	options := &jose.SignerOptions{}
	for name, value := range header {
		if name != "alg" {
			options = options.WithHeader(jose.HeaderKey(name), value)
		}
	}
	var key any = keys[row.Key]
	if row.Secret != nil {
		key = must(encoding.DecodeString(*row.Secret))
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.SignatureAlgorithm(row.Alg), Key: key}, options)
	if err != nil {
		return "", err
	}
	signed, err := signer.Sign(must(encoding.DecodeString(row.Payload)))
	if err != nil {
		return "", err
	}
	token, err := signed.CompactSerialize()
	if err != nil {
		return "", err
	}
	parts := strings.Split(token, ".")
	var wrote map[string]any
	if err := json.Unmarshal(must(encoding.DecodeString(parts[0])), &wrote); err != nil {
		return "", err
	}
	if !reflect.DeepEqual(wrote, header) || parts[1] != row.Payload {
		return "", errors.New("it writes another token")
	}
	return token, nil
}

var hashes = map[string]crypto.Hash{"256": crypto.SHA256, "384": crypto.SHA384, "512": crypto.SHA512}

func byHand(row asked) string {
	text := encoding.EncodeToString([]byte(row.Header)) + "." + row.Payload
	return text + "." + encoding.EncodeToString(signature(row, []byte(text)))
}

func signature(row asked, text []byte) []byte {
	if row.Alg == "none" {
		return nil
	}
	if row.Alg[:2] == "Ed" {
		return ed25519.Sign(keys[row.Key].(ed25519.PrivateKey), text)
	}
	hash := hashes[row.Alg[2:]]
	digest := hash.New()
	digest.Write(text)
	sum := digest.Sum(nil)
	switch row.Alg[:2] {
	case "HS":
		mac := hmac.New(hash.New, must(encoding.DecodeString(*row.Secret)))
		mac.Write(text)
		return mac.Sum(nil)
	case "ES":
		key := keys[row.Key].(*ecdsa.PrivateKey)
		r, s, err := ecdsa.Sign(rand.Reader, key, sum)
		must(0, err)
		size := (key.Params().BitSize + 7) / 8
		return append(r.FillBytes(make([]byte, size)), s.FillBytes(make([]byte, size))...)
	case "PS":
		options := &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash}
		return must(rsa.SignPSS(rand.Reader, keys[row.Key].(*rsa.PrivateKey), hash, sum, options))
	default:
		return must(rsa.SignPKCS1v15(rand.Reader, keys[row.Key].(*rsa.PrivateKey), hash, sum))
	}
}

func token(row asked) tokenMade {
	token, err := byLibrary(row)
	if err == nil {
		return tokenMade{Token: token, By: "library"}
	}
	return tokenMade{Token: byHand(row), By: "hand", Why: err.Error()}
}

func main() {
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(make([]byte, 1<<16), 1<<22)
	for lines.Scan() {
		var row asked
		if err := json.NewDecoder(bytes.NewReader(lines.Bytes())).Decode(&row); err != nil {
			panic(err)
		}
		var answer any
		if row.Keys != nil {
			answer = makeKeys(row.Keys)
		} else {
			answer = token(row)
		}
		fmt.Println(string(must(json.Marshal(answer))))
	}
}
