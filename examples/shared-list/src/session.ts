// Who is logged in: a token of the server's own users, kept by this page alone.

/** Where the page came from is also the server that it syncs with. */
const LOGIN = new URL('/v1/login', location.href);

export class Session {
  readonly user: string;
  #token: string;
  readonly #ask: () => Promise<Session>;

  private constructor(user: string, token: string, ask: () => Promise<Session>) {
    this.user = user;
    this.#token = token;
    this.#ask = ask;
  }

  /** Logs in; `ask` shows the form again once the token is over. */
  static async begin(
    user: string,
    password: string,
    ask: () => Promise<Session>,
  ): Promise<Session> {
    const body = JSON.stringify({ user, password });
    const answer = await fetch(LOGIN, { method: 'POST', body }).catch(() => null);
    if (!answer) throw new Error('The server does not answer.');
    if (answer.status === 404) {
      throw new Error('This server lets in everybody: start it by npm start in this folder.');
    }
    if (answer.status === 429) throw new Error('Too many tries: wait a little.');
    if (!answer.ok) throw new Error('No such user, or another password.');
    return new Session(user, ((await answer.json()) as { token: string }).token, ask);
  }

  /** For `open()`: at each connection, and before the token expires. */
  readonly token = async (): Promise<string> => {
    if (secondsLeft(this.#token) < RENEWED_BEFORE_S) this.#token = (await this.#ask()).#token;
    return this.#token;
  };
}

/** Ten minutes before a token of twelve hours is over its user is asked for the password. */
const RENEWED_BEFORE_S = 600;

function secondsLeft(token: string): number {
  const claims = JSON.parse(atob(token.split('.')[1]!.replace(/-/g, '+').replace(/_/g, '/')));
  return (claims as { exp: number }).exp - Date.now() / 1_000;
}
