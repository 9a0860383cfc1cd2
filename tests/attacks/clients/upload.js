// Uploads so many bytes, with a length and in chunks, and prints the statuses.
const http = require('node:http');
const [, , target, length] = process.argv;
const body = Buffer.alloc(Number(length));
const upload = (headers) => new Promise((resolve, reject) => {
  const request = http.request(target, { method: 'POST', headers, agent: false }, (response) => {
    response.resume();
    response.on('end', () => resolve(response.statusCode));
  });
  request.on('error', reject);
  request.write(body.subarray(0, body.length / 2));
  request.end(body.subarray(body.length / 2));
});
(async () => {
  console.log(await upload({ 'Content-Type': 'application/json', 'Content-Length': body.length }));
  console.log(await upload({ 'Content-Type': 'application/json' }));
})();
