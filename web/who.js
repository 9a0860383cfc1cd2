'use strict';
// Who writes: a token, kept for as long as this tab is open.

const who = { token: null, user: null };
// The server prints it in the address of the page: whoever has it may be given tokens.
const pageKey = location.hash.split('#key=')[1];
// What the server tells its page. Until it has, what holds where nothing is set.
let desk = { user_claim: ['sub'], heartbeat_s: 15 };

function claimsOf(token) {
  const part = token.split('.')[1].replace(/-/g, '+').replace(/_/g, '/');
  return JSON.parse(new TextDecoder().decode(Uint8Array.from(atob(part), letter => letter.charCodeAt(0))));
}

function signIn(token) {
  try {
    const claims = claimsOf(token), user = desk.user_claim.reduce((value, name) => value[name], claims);
    if (typeof user !== 'string') throw new Error();
    who.token = token;
    who.user = $('user').textContent = user;
    $('until').textContent = claims.exp ? `until ${timeOf(new Date(1000 * claims.exp))}` : '';
    sessionStorage.setItem('token', token);
  } catch {
    return whoTrouble('That is no token that names a user.');
  }
  $('token').value = '';
  whoTrouble('');
  showWho();
}

function signOut() {
  who.token = who.user = null;
  sessionStorage.removeItem('token');
  showWho();
  askWho();
}

const askWho = () => ($('mint').hidden ? $('token') : $('mint-name')).focus();

function showWho() {
  $('signed-in').hidden = !who.token;
  $('signed-out').hidden = !!who.token;
  filter.list = null;
  draw();
}

function whoTrouble(text) {
  $('who-trouble').textContent = text;
  $('who-trouble').hidden = !text;
}

// Whether there is somebody to write as; else says how there will be.
function mayWrite() {
  if (who.token) return true;
  whoTrouble('Say who you are before you write.');
  askWho();
  return false;
}

function mayChange(todo) {
  if (who.token && todo.user_id !== who.user) return say(`Only ${todo.user_id} may change this todo.`);
  return mayWrite();
}

async function mint(name) {
  try {
    const response = await fetch('/page/token', {
      method: 'POST', headers: { 'Page-Token': pageKey, 'Content-Type': 'application/json' }, body: JSON.stringify({ sub: name }),
    });
    if (!response.ok) return whoTrouble((await problemOf(response)).detail);
    signIn((await response.json()).token);
    $('title').focus();
  } catch {
    whoTrouble('The server does not answer.');
  }
}

async function startWho() {
  $('mint').addEventListener('submit', event => { event.preventDefault(); mint($('mint-name').value); });
  $('paste').addEventListener('submit', event => { event.preventDefault(); signIn($('token').value.trim()); if (who.token) $('title').focus(); });
  $('sign-out').addEventListener('click', signOut);
  await askDesk();
  const kept = sessionStorage.getItem('token');
  if (kept) signIn(kept);
  showWho();
}

async function askDesk() {
  try {
    Object.assign(desk, await (await get('/page/token')).json());
  } catch {
    // A token can be pasted.
  }
  $('mint').hidden = !pageKey || !desk.makes_tokens;
  $('paste').classList.toggle('second', !$('mint').hidden);
  if (who.token) signIn(who.token);
}
