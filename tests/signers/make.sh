#!/bin/sh
# Makes tests/signers/tokens.jsonl again: a token of each algorithm and key by each of four libraries that are not ours.
# `src/auth/signer_tests.rs` takes each of them, and refuses each change of one. Needs python3, node, go, java and mvn.
#
#     tests/signers/make.sh            writes tests/signers/tokens.jsonl
#     tests/signers/make.sh -          prints
set -eu
cd "$(dirname "$0")"
here=$(pwd)
keys=$here/../harness/keys
folder=$here/../../target/signers
mkdir -p "$folder/go" "$folder/npm" "$folder/java"
pyjwt=2.10.1 jose=6.0.11 gojose=v4.1.2 nimbus=10.3

python3 -m venv "$folder/python"
"$folder/python/bin/pip" --quiet install "pyjwt==$pyjwt" cryptography
(cd "$folder/npm" && npm --silent --no-audit --no-fund install "jose@$jose")
cp sign.mjs "$folder/npm/"
cp sign.go "$folder/go/"
(cd "$folder/go" && { [ -e go.mod ] || go mod init signers; } && go get "github.com/go-jose/go-jose/v4@$gojose") >/dev/null 2>&1
cat > "$folder/java/pom.xml" <<POM
<project><modelVersion>4.0.0</modelVersion><groupId>signers</groupId><artifactId>signers</artifactId><version>1</version>
<dependencies>
<dependency><groupId>com.nimbusds</groupId><artifactId>nimbus-jose-jwt</artifactId><version>$nimbus</version></dependency>
<dependency><groupId>org.bouncycastle</groupId><artifactId>bcpkix-jdk18on</artifactId><version>1.80</version></dependency>
</dependencies></project>
POM
mvn --quiet -f "$folder/java/pom.xml" dependency:copy-dependencies "-DoutputDirectory=$folder/java/jars"

make() {
    "$folder/python/bin/python" sign.py "$keys"
    (cd "$folder/npm" && node sign.mjs "$keys" "$jose")
    (cd "$folder/go" && go run . "$keys" "$gojose")
    java -cp "$folder/java/jars/*" Sign.java "$keys" "$nimbus"
}
if [ "${1:-}" = - ]; then make; else make > "$folder/tokens.jsonl" && mv "$folder/tokens.jsonl" tokens.jsonl; fi
