'use strict';
// Starts everything.

let saying = 0;

// For who does not see the page: outcomes of one's own writes, one at a time; what others do is not read out.
function say(text) {
  clearTimeout(saying);
  saying = setTimeout(() => { $('said').textContent = text; }, 150);
}

$('add').addEventListener('submit', event => {
  event.preventDefault();
  const title = $('title').value.trim();
  if (!title || !mayWrite()) return;
  $('title').value = '';
  write('create', null, title, { title });
});
const refilter = () => {
  filter.text = $('filter').value.trim().toLowerCase();
  filter.mine = $('only-mine').checked;
  filter.open = $('only-open').checked;
  filter.list = null;
  scrollTo_(0);
  draw();
};
for (const id of ['filter', 'only-mine', 'only-open']) $(id).addEventListener('input', refilter);
$('more').addEventListener('click', () => loadMore(10000).catch(error => say(error.message)));

startRows();
startWho();
startMachine();
follow();
