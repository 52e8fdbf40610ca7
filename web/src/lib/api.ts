// The portal's HTTP interface. Every failure becomes an ApiError with a code that the texts know.
import { readNdjson } from './ndjson';

export interface Site {
  /** The one that a name without a domain belongs to. */
  domain: string;
  /** All that are hosted. */
  domains: string[];
  xmppWebsocket: string;
  /** The origin in the links of uploaded files; what lies there, lies on our own origin too. */
  filesOrigin: string;
  outside: boolean;
  languages: string[];
  version: string;
}

export interface User {
  address: string;
  displayName: string;
}

export interface SignedIn extends User {
  token: string;
}

export interface Space {
  id: string;
  name: string;
  callId: string;
  passcode: string;
  link: string;
}

/** One line of the discovery stream, as the server's discovery engine reports it. */
export type DiscoveryLine = Record<string, unknown>;

export class ApiError extends Error {
  constructor(
    readonly code: string,
    message: string,
    readonly hint = '',
  ) {
    super(message);
  }
}

const TIMEOUT_MS = 20_000;

/** The server names an error after its class; the texts name it after what a person should understand. */
const CODES: Record<string, string> = {
  'auth-error': 'unauthorized',
  'limit-exceeded': 'rate-limited',
  'usage-error': 'bad-request',
  refused: 'forbidden',
  'peer-error': 'unavailable',
  'peer-timeout': 'unavailable',
  'peer-unreachable': 'unavailable',
};

async function call(method: 'GET' | 'POST' | 'DELETE', path: string, body?: unknown, token?: string): Promise<Response> {
  const headers: Record<string, string> = { Accept: 'application/json' };
  if (body !== undefined) headers['Content-Type'] = 'application/json';
  if (token) headers['Authorization'] = `Bearer ${token}`;
  const init: RequestInit = { method, headers, credentials: 'same-origin', signal: AbortSignal.timeout(TIMEOUT_MS) };
  if (body !== undefined) init.body = JSON.stringify(body);
  let response: Response;
  try {
    response = await fetch(path, init);
  } catch {
    throw new ApiError('unreachable', 'no answer');
  }
  if (!response.ok) throw await errorOf(response);
  return response;
}

async function errorOf(response: Response): Promise<ApiError> {
  const plain = response.status >= 502 ? 'unavailable' : response.status === 404 ? 'not-found' : 'internal';
  try {
    const { error } = (await response.json()) as { error: { code: string; message: string; hint?: string } };
    return new ApiError(CODES[error.code] ?? (error.code || plain), error.message, error.hint ?? '');
  } catch {
    return new ApiError(plain, response.statusText);
  }
}

async function json<T>(answer: Promise<Response>): Promise<T> {
  const response = await answer;
  try {
    return (await response.json()) as T;
  } catch {
    throw new ApiError('unavailable', 'the answer is not JSON');
  }
}

export const getSite = (): Promise<Site> => json(call('GET', '/api/site'));

/** The session of the browser's cookie, or null when nobody is signed in. */
export async function getSession(): Promise<SignedIn | null> {
  try {
    return await json<SignedIn>(call('GET', '/api/session'));
  } catch (error) {
    if (error instanceof ApiError && error.code === 'unauthorized') return null;
    throw error;
  }
}

export async function login(address: string, password: string): Promise<SignedIn> {
  try {
    return await json(call('POST', '/api/login', { address, password }));
  } catch (error) {
    if (error instanceof ApiError && error.code === 'unauthorized') throw new ApiError('wrong-credentials', error.message);
    throw error;
  }
}

export const logout = async (): Promise<void> => void (await call('POST', '/api/logout', {}));

/** Runs discovery on the server and hands over each line as it arrives; the last one is the outcome. */
export async function discover(address: string, onLine: (line: DiscoveryLine) => void): Promise<void> {
  const response = await call('POST', '/api/discover', { address });
  if (!response.body) throw new ApiError('unavailable', 'no stream');
  try {
    for await (const line of readNdjson(response.body)) {
      if (line && typeof line === 'object') onLine(line as DiscoveryLine);
    }
  } catch {
    throw new ApiError('unavailable', 'the connection broke off');
  }
}

export async function listSpaces(token: string): Promise<Space[]> {
  const answer = await json<Space[] | { spaces: Space[] }>(call('GET', '/api/spaces', undefined, token));
  return Array.isArray(answer) ? answer : answer.spaces;
}

export async function removeSpace(token: string, id: string): Promise<void> {
  await call('DELETE', `/api/spaces/${encodeURIComponent(id)}`, undefined, token);
}

/** The name of a meeting for who holds its secret; empty for others, who learn it when they are in. */
export async function meetingName(callId: string, secret: string): Promise<string> {
  const query = new URLSearchParams({ secret }).toString();
  const answer = await json<{ name?: string }>(call('GET', `/api/meeting/${encodeURIComponent(callId)}?${query}`));
  return answer.name ?? '';
}

export const createSpace = (token: string, name: string): Promise<Space> =>
  json(call('POST', '/api/spaces', { name }, token));
