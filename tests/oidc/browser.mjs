// The browser of somebody who logs in: follows redirects, keeps cookies, fills in forms. `node browser.mjs URL LOGIN|cancel|refuse`.
// `cancel`: goes back at the log-in page; `refuse`: does not confirm the device. Prints the last page.
const [, , first, who] = process.argv;
const cookies = new Map();

async function ask(url, form) {
  const answer = await fetch(url, {
    method: form ? 'POST' : 'GET',
    redirect: 'manual',
    body: form && new URLSearchParams(form),
    headers: { cookie: [...cookies].map(([name, value]) => `${name}=${value}`).join('; ') },
  });
  for (const line of answer.headers.getSetCookie()) {
    const [pair] = line.split(';');
    const at = pair.indexOf('=');
    cookies.set(pair.slice(0, at), pair.slice(at + 1));
  }
  const to = answer.headers.get('location');
  return to ? ask(new URL(to, url)) : { url, page: await answer.text() };
}

const plain = (text) => text.replaceAll('&amp;', '&').replaceAll('&quot;', '"');

let { url, page } = await ask(first);
for (let step = 0; step < 12; step += 1) {
  const form = /<form[^>]*>[\s\S]*?<\/form>/.exec(page)?.[0];
  if (!form || url.hostname === '127.0.0.1') break;
  const fields = {};
  for (const [input] of form.matchAll(/<input[^>]*>/g)) {
    const name = /name="([^"]*)"/.exec(input)?.[1];
    if (name) fields[name] = plain(/value="([^"]*)"/.exec(input)?.[1] ?? '');
  }
  if (who === 'cancel' && fields.prompt) {
    const back = /href="([^"]*\/abort)"/.exec(page)[1];
    ({ url, page } = await ask(new URL(plain(back), url)));
    continue;
  }
  if (who === 'refuse' && fields.confirm) {
    delete fields.confirm;
    fields.abort = 'yes';
  }
  if ('login' in fields) fields.login = who;
  if ('password' in fields) fields.password = 'any';
  ({ url, page } = await ask(new URL(plain(/action="([^"]*)"/.exec(form)[1]), url), fields));
  if (who === 'refuse' && fields.abort) break;
}
console.log(page);
