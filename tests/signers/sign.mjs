// Prints a token for each key: jose of npm.
import { readFileSync } from 'node:fs';
import { SignJWT, importPKCS8 } from 'jose';

const [keys, version] = process.argv.slice(2);
const sign = async (alg, key, kid) => {
  const token = await new SignJWT({ aud: ['todos'] })
    .setProtectedHeader({ alg, ...(kid && { kid }), typ: 'JWT' })
    .setSubject('alice').setIssuedAt(1800000000).setExpirationTime(4102444800).sign(key);
  console.log(JSON.stringify({ signer: `jose ${version}`, alg, token }));
};
for (const [alg, name] of [['RS256', 'rsa'], ['PS256', 'rsa'], ['ES256', 'ec'], ['EdDSA', 'ed']]) {
  await sign(alg, await importPKCS8(readFileSync(`${keys}/${name}.pem`, 'utf8'), alg), name);
}
const secret = new TextEncoder().encode('0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef');
for (const alg of ['HS256', 'HS384', 'HS512']) await sign(alg, secret);
