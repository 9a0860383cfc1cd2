#!/bin/sh
# Fetches what tests have from other projects: the raw requests that they test their HTTP parsers with, for tests/corpora, and
# axe-core, which looks for what keeps people from using a page, for tests/page. It goes into target/corpora, each from its own
# distribution, of one version and checked. What is there already is not fetched again.
#
# A copy from elsewhere does as well: put the archive into target/corpora/archives under the name that the URL ends in.
set -eu
cd "$(dirname "$0")/.."

folder=target/corpora
archives=$folder/archives

die() { printf 'corpora: %s\n' "$*" >&2; exit 1; }

# fetch NAME URL SHA256 MEMBERS: unpacks the members that match the pattern into target/corpora/NAME.
fetch() {
    [ -e "$folder/$1/.complete" ] && return
    archive=$archives/$(basename "$2")
    if [ ! -e "$archive" ]; then
        echo "corpora: fetching $2" >&2
        curl -sSfL --retry 3 --max-time 300 -o "$archive.part" "$2" || die "cannot fetch $2; tests/corpora and tests/page need it"
        mv "$archive.part" "$archive"
    fi
    echo "$3  $archive" | sha256sum --check --quiet - ||
        die "$archive is not what it should be (sha256 $3); delete it and try again"
    rm -rf "${folder:?}/$1"
    mkdir -p "$folder/$1"
    tar -xf "$archive" -C "$folder/$1" --strip-components=1 --wildcards "$4" || die "cannot unpack $archive"
    touch "$folder/$1/.complete"
}

mkdir -p "$archives"
fetch gunicorn-27.0.1 \
    https://files.pythonhosted.org/packages/0e/fc/7fd4bbebc1d17394a5c98f0ef565da3341dbb664748d1bebedefead356ee/gunicorn-27.0.1.tar.gz \
    b1514965361c8b7e8107a80aa2a92636878df1ccfac6dd204a676426e04d9e3e '*/tests/requests/*'
fetch h2o-2.2.5 \
    https://deb.debian.org/debian/pool/main/h/h2o/h2o_2.2.5+dfsg2.orig.tar.xz \
    a46894bd85da6528d4ad90ce0443b48118718296175061a1a1156e9e3af60a0d '*/fuzz/http1-corpus/*'
fetch http-parser-2.9.4 \
    https://deb.debian.org/debian/pool/main/h/http-parser/http-parser_2.9.4.orig.tar.gz \
    467b9e30fd0979ee301065e70f637d525c28193449e1b13fbcb1b1fab3ad224f '*/test.c'
fetch axe-core-4.14.1 \
    https://registry.npmjs.org/axe-core/-/axe-core-4.14.1.tgz \
    e6b0ce02b84d892e2e33e403485e7f3d6c29e2be6df65daf44d89ba564139745 '*/axe.min.js'
