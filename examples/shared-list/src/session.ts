// Who is logged in: a token of the server's own users, kept by this page alone.

/** Where the page came from is also the server that it syncs with. */
const LOGIN = new URL('/v1/login', location.href);

export class Session {
  readonly user: string;
  #token: string;
  /** When it is over, by this device's clock: which may be wrong, but not for how long. */
  #endsAt: number;
  readonly #ask: () => Promise<Session>;

  private constructor(user: string, token: string, ask: () => Promise<Session>) {
    this.user = user;
    this.#token = token;
    this.#endsAt = Date.now() + lifetimeOf(token);
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
    if (this.#endsAt - Date.now() < RENEWED_BEFORE) {
      const later = await this.#ask();
      this.#token = later.#token;
      this.#endsAt = later.#endsAt;
    }
    return this.#token;
  };
}

/** Ten minutes, in milliseconds, before a token of twelve hours is over its user is asked again. */
const RENEWED_BEFORE = 600_000;

/** For how many milliseconds a token that was just issued is good. */
function lifetimeOf(token: string): number {
  const claims = JSON.parse(atob(token.split('.')[1]!.replace(/-/g, '+').replace(/_/g, '/')));
  const { exp, iat } = claims as { exp: number; iat: number };
  return (exp - iat) * 1_000;
}
