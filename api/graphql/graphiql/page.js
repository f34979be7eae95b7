// The page around GraphiQL: the token, the example tabs, the way requests take. Everything is kept for this tab of the
// browser alone (sessionStorage): tokens, and documents with their variables, may be secret.
'use strict';

(() => {
  const TOKEN = 'tandem.token';
  const PATH = location.pathname;

  const storage = {
    getItem: (key) => sessionStorage.getItem(key),
    setItem: (key, value) => sessionStorage.setItem(key, value),
    removeItem: (key) => sessionStorage.removeItem(key),
    clear: () => sessionStorage.clear(),
    get length() { return sessionStorage.length; },
  };

  const tabs = [
    {
      query: '# Who am I, and what may I do?\nquery Viewer {\n  viewer {\n    name\n    accountId\n    permissions\n  }\n}\n',
    },
    {
      query: '# Accounts within reach; more with "after" and endCursor.\nquery Accounts($first: Int!, $after: String) {\n' +
        '  accounts(first: $first, after: $after) {\n    nodes {\n      id\n      kind\n      name\n      timezone\n' +
        '      currency\n    }\n    pageInfo {\n      hasNextPage\n      endCursor\n    }\n  }\n}\n',
      variables: JSON.stringify({ first: 20 }, null, 2),
    },
    {
      query: '# A plan: dryRun writes nothing.\n' +
        'mutation SubscriberCreate($input: SubscriberCreateInput!, $key: String) {\n' +
        '  subscriberCreate(input: $input, dryRun: true, idempotencyKey: $key) {\n    id\n    plan {\n' +
        '      effects {\n        kind\n        resourceKind\n        name\n      }\n    }\n    userErrors {\n' +
        '      code\n      field\n      message\n      remedy\n    }\n  }\n}\n\n' +
        '# The domainId comes from here.\nquery Domains {\n  domains(first: 20) {\n    nodes {\n      id\n      name\n' +
        '    }\n  }\n}\n',
      variables: JSON.stringify(
        { input: { domainId: '', username: 'alice', displayName: 'Alice', extension: '101' }, key: null }, null, 2),
    },
  ];

  const field = document.getElementById('token');
  const state = document.getElementById('state');
  const token = () => sessionStorage.getItem(TOKEN) || '';

  // The header editor goes before the field.
  const headers = (accept, ours) => ({
    accept,
    'content-type': 'application/json',
    ...(token() ? { authorization: `Bearer ${token()}` } : {}),
    ...ours,
  });

  const post = (parameters, accept, options) => fetch(PATH, {
    method: 'POST',
    headers: headers(accept, options?.headers),
    body: JSON.stringify(parameters),
    credentials: 'omit',
  });

  const isSubscription = (parameters, options) => (options?.documentAST?.definitions || []).some((definition) =>
    definition.operation === 'subscription' &&
    (!parameters.operationName || definition.name?.value === parameters.operationName));

  // Server-sent events: "event" and "data" lines, an empty line ends each.
  async function* stream(parameters, options) {
    const response = await post(parameters, 'text/event-stream', options);
    if (!response.ok || !(response.headers.get('content-type') || '').startsWith('text/event-stream')) {
      yield await response.json();
      return;
    }
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    try {
      for (let text = ''; ;) {
        const { value, done } = await reader.read();
        if (done) return;
        text += value;
        for (let end; (end = text.indexOf('\n\n')) >= 0; text = text.slice(end + 2)) {
          const lines = text.slice(0, end).split('\n');
          const of = (name) => lines.filter((line) => line.startsWith(name)).map((line) => line.slice(name.length).trim());
          if (of('event:')[0] === 'complete') return;
          if (of('event:')[0] === 'next') yield JSON.parse(of('data:').join('\n'));
        }
      }
    } finally {
      reader.cancel();
    }
  }

  const fetcher = (parameters, options) => isSubscription(parameters, options)
    ? stream(parameters, options)
    : post(parameters, 'application/json', options).then((response) => response.json());

  const root = ReactDOM.createRoot(document.getElementById('graphiql'));
  const render = () => {
    field.value = token();
    state.textContent = token() ? '' : 'Without a token only { __typename } is answered.';
    root.render(React.createElement(GraphiQL, {
      // another caller: the schema is asked for anew
      key: token(),
      fetcher,
      storage,
      defaultTabs: tabs,
      shouldPersistHeaders: false,
      ...(token() ? {} : { schema: null }),
    }));
  };

  document.getElementById('token-form').addEventListener('submit', (event) => {
    event.preventDefault();
    sessionStorage.setItem(TOKEN, field.value.trim().replace(/^Bearer\s+/i, ''));
    render();
  });
  document.getElementById('forget').addEventListener('click', () => {
    sessionStorage.removeItem(TOKEN);
    render();
  });
  render();
})();
