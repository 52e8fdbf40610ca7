// One XMPP session over WebSocket (RFC 7395) that comes back by itself. Knows streams, not contacts or chats.
import { Strophe } from 'strophe.js';
import { backoff } from '../backoff';
import { PING, ping, result, ROSTER, type Stanza } from './compose';
import { bare } from './jid';

export type LinkState = 'stopped' | 'connecting' | 'online' | 'waiting';

export interface WireEvents {
  /** `waitMs` is given with `waiting`: the time until the next attempt. */
  onState(state: LinkState, waitMs: number): void;
  /** A new stream is bound: nothing of the old one counts any more. */
  onReady(): void;
  onPresence(stanza: Element): void;
  onMessage(stanza: Element): void;
  onRosterPush(stanza: Element): void;
  /** The server refused the credentials; the session is over. */
  onRefused(): void;
}

const CONNECT_MS = 12_000;
const IQ_MS = 10_000;
const PING_EVERY_MS = 30_000;

export class Wire {
  private connection: InstanceType<typeof Strophe.Connection> | null = null;
  private attempt = 0;
  private retry = 0;
  private watch = 0;
  private heartbeat = 0;
  private running = false;
  private bound = false;

  constructor(
    private readonly url: string,
    private readonly address: string,
    private readonly password: string,
    private readonly events: WireEvents,
  ) {
    Strophe.setLogLevel(Strophe.LogLevel.FATAL);
  }

  start(): void {
    this.running = true;
    addEventListener('online', this.wake);
    document.addEventListener('visibilitychange', this.onVisible);
    this.heartbeat = window.setInterval(() => this.bound && this.check(), PING_EVERY_MS);
    this.connect();
  }

  /** Ends the session for good: unavailable presence, stream close, no more attempts. */
  stop(): void {
    this.running = false;
    removeEventListener('online', this.wake);
    document.removeEventListener('visibilitychange', this.onVisible);
    clearInterval(this.heartbeat);
    clearTimeout(this.retry);
    clearTimeout(this.watch);
    const connection = this.connection;
    this.connection = null;
    if (this.bound) connection?.disconnect('signed out');
    this.bound = false;
    this.events.onState('stopped', 0);
  }

  /** Sends a stanza when the stream is up; says whether it was handed to the socket. */
  send(stanza: Stanza): boolean {
    if (!this.bound || !this.connection) return false;
    this.connection.send(stanza);
    this.connection.flush();
    return true;
  }

  /** Sends an IQ and resolves with its result. Rejects on an error answer, silence, or when there is no stream. */
  request(stanza: Stanza): Promise<Element> {
    return new Promise((resolve, reject) => {
      if (!this.bound || !this.connection) reject(new Error('no stream'));
      else this.connection.sendIQ(stanza, resolve, () => reject(new Error('iq failed')), IQ_MS);
    });
  }

  /** Resolves once the server has processed everything sent so far: it answers in order (RFC 6120 section 10.1). */
  flushed(): Promise<Element> {
    return this.request(ping());
  }

  /** Tries again now instead of when the waiting time is over. */
  readonly wake = (): void => {
    if (!this.running || this.connection) return;
    this.attempt = 0;
    clearTimeout(this.retry);
    this.connect();
  };

  private readonly onVisible = (): void => {
    if (document.visibilityState !== 'visible') return;
    if (this.bound) this.check();
    else this.wake();
  };

  private check(): void {
    const connection = this.connection;
    this.flushed().catch(() => {
      if (connection === this.connection) this.lost();
    });
  }

  private connect(): void {
    this.events.onState('connecting', 0);
    const connection = new Strophe.Connection(this.url);
    this.connection = connection;
    this.watch = window.setTimeout(() => connection === this.connection && this.lost(), CONNECT_MS);
    connection.connect(this.address, this.password, (status: number) => {
      if (connection === this.connection) this.onStatus(connection, status);
    });
  }

  private onStatus(connection: InstanceType<typeof Strophe.Connection>, status: number): void {
    const { Status } = Strophe;
    if (status === Status.CONNECTED) {
      clearTimeout(this.watch);
      this.attempt = 0;
      this.bound = true;
      this.listen(connection);
      this.events.onState('online', 0);
      this.events.onReady();
    } else if (status === Status.AUTHFAIL) {
      this.stop();
      connection.disconnect('refused');
      this.events.onRefused();
    } else if (status === Status.DISCONNECTED || status === Status.CONNFAIL || status === Status.ERROR) {
      this.lost();
    }
  }

  private listen(connection: InstanceType<typeof Strophe.Connection>): void {
    const forward = (handler: (stanza: Element) => void) => (stanza: Element) => {
      if (connection === this.connection) handler(stanza);
      return true;
    };
    const any = '';
    connection.addHandler(forward((el) => this.events.onPresence(el)), any, 'presence', any, any, any);
    connection.addHandler(forward((el) => this.events.onMessage(el)), any, 'message', any, any, any);
    connection.addHandler(forward((el) => this.onRosterSet(el)), ROSTER, 'iq', 'set', any, any);
    connection.addHandler(forward((el) => this.answer(el)), PING, 'iq', 'get', any, any);
  }

  private onRosterSet(iq: Element): void {
    const from = iq.getAttribute('from');
    // RFC 6121 section 2.1.6: a push from anybody but our own account is an attack.
    if (from && bare(from) !== bare(this.address)) return;
    this.answer(iq);
    this.events.onRosterPush(iq);
  }

  private answer(iq: Element): void {
    this.send(result(iq.getAttribute('id') ?? '', iq.getAttribute('from')));
  }

  private lost(): void {
    clearTimeout(this.watch);
    const connection = this.connection;
    this.connection = null;
    this.bound = false;
    if (!this.running) return;
    connection?.disconnect('lost');
    const wait = backoff(this.attempt);
    this.attempt += 1;
    this.retry = window.setTimeout(() => this.connect(), wait);
    this.events.onState('waiting', wait);
  }
}
