// Prints a token for each key: go-jose.
package main

import (
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"os"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

func check(err error) {
	if err != nil {
		panic(err)
	}
}

func sign(alg jose.SignatureAlgorithm, key any, kid string) {
	options := (&jose.SignerOptions{}).WithType("JWT")
	if kid != "" {
		options = options.WithHeader("kid", kid)
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: key}, options)
	check(err)
	expiry, issued := jwt.NumericDate(4102444800), jwt.NumericDate(1800000000)
	claims := jwt.Claims{Subject: "alice", Audience: jwt.Audience{"todos"}, Expiry: &expiry, IssuedAt: &issued}
	token, err := jwt.Signed(signer).Claims(claims).Serialize()
	check(err)
	check(json.NewEncoder(os.Stdout).Encode(map[string]string{"signer": "go-jose " + os.Args[2], "alg": string(alg), "token": token}))
}

func main() {
	for _, one := range [][2]string{{"RS256", "rsa"}, {"PS256", "rsa"}, {"ES256", "ec"}, {"EdDSA", "ed"}} {
		text, err := os.ReadFile(os.Args[1] + "/" + one[1] + ".pem")
		check(err)
		block, _ := pem.Decode(text)
		key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
		check(err)
		sign(jose.SignatureAlgorithm(one[0]), key, one[1])
	}
	for _, alg := range []jose.SignatureAlgorithm{jose.HS256, jose.HS384, jose.HS512} {
		sign(alg, []byte("0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"), "")
	}
}
