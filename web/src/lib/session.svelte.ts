// Who is signed in: the way from an address and a password to a chat session, and back out.
import { ApiError, discover, getSession, getSite, login, logout, type SignedIn, type Site } from './api';
import { readOutcome, readStep, readTrouble, type Outcome, type Step } from './discovery';
import type { Key } from '../lang/en';
import { recall, remember } from './memory';
import { Chat } from './xmpp/chat.svelte';
import { parseAddress } from './xmpp/jid';

export type Phase = 'out' | 'discovering' | 'checking' | 'opening' | 'in';

const CHAT_WAIT_MS = 8000;

class Session {
  phase = $state<Phase>('out');
  /** The account of this browser's web session: known before and without a chat session, for example in a new tab. */
  user = $state.raw<SignedIn | null>(null);
  chat = $state.raw<Chat | null>(null);
  site = $state.raw<Site | null>(null);
  steps = $state<Step[]>([]);
  outcome = $state.raw<Outcome | null>(null);
  /** What was typed, for as long as the page lives: in memory only, to come back after the server was away. */
  private secret: { address: string; password: string } | null = null;
  /** Why discovery gave no outcome; sign-in goes on without it. */
  skipped = $state('');
  error = $state.raw<{ code: string; hint: string } | null>(null);

  /** Asks who the server is and whether the browser has a session already. Quiet on failure: sign-in will say it. */
  async restore(): Promise<void> {
    try {
      [this.site, this.user] = await Promise.all([getSite(), getSession()]);
    } catch {
      this.user = null;
    }
  }

  /** The web session with a token that is good now: the server forgets sessions when it starts anew. Null for a guest. */
  async fresh(): Promise<SignedIn | null> {
    try {
      const there = await getSession();
      // Another tab of this browser may have signed somebody else in: the cookie is theirs then.
      const mine = there && (!this.secret || this.secret.address === there.address);
      this.user = mine ? there : await this.again();
    } catch (error) {
      if (error instanceof ApiError && error.code === 'wrong-credentials') void this.signOut('session-replaced');
    }
    return this.user;
  }

  private again(): Promise<SignedIn> | null {
    return this.secret ? login(this.secret.address, this.secret.password) : null;
  }

  get lastAddress(): string {
    return this.user?.address ?? recall('address') ?? '';
  }

  async signIn(typed: string, password: string): Promise<void> {
    this.error = null;
    this.steps = [];
    this.outcome = null;
    this.skipped = '';
    try {
      await this.attempt(typed, password);
    } catch (error) {
      this.chat?.stop();
      this.chat = null;
      this.secret = null;
      this.phase = 'out';
      const known = error instanceof ApiError ? error : new ApiError('internal', String(error));
      this.error = { code: known.code, hint: known.hint };
    }
  }

  /** Ends the web session and the chat session; `reason` is shown on the sign-in page. */
  async signOut(reason?: string): Promise<void> {
    this.chat?.stop();
    this.chat = null;
    this.user = null;
    this.secret = null;
    this.phase = 'out';
    this.error = reason ? { code: reason, hint: '' } : null;
    await logout().catch(() => undefined);
  }

  private async attempt(typed: string, password: string): Promise<void> {
    if (!globalThis.isSecureContext) throw new ApiError('insecure', 'no WebCrypto here');
    this.phase = 'discovering';
    this.site ??= await getSite();
    const address = parseAddress(typed.includes('@') ? typed : `${typed.trim()}@${this.site.domain}`);
    if (!address) throw new ApiError('bad-address', 'not an address');
    if (!this.site.domains.includes(address.slice(address.indexOf('@') + 1))) throw new ApiError('not-hosted', 'another domain');
    await this.discover(address);
    this.phase = 'checking';
    this.user = await login(address, password);
    this.secret = { address, password };
    remember('address', this.user.address);
    this.phase = 'opening';
    await this.openChat(this.site, this.user.address, password);
    this.phase = 'in';
  }

  private async discover(address: string): Promise<void> {
    try {
      await discover(address, (line) => {
        const step = readStep(line);
        if (step) this.steps.push(step);
        this.outcome = readOutcome(line) ?? this.outcome;
        this.skipped = readTrouble(line) ?? this.skipped;
      });
    } catch (error) {
      if (!(error instanceof ApiError) || error.code === 'unreachable') throw error;
      this.skipped = error.message;
    }
  }

  /** Resolves when the stream is up, or when it is clear that this will take longer: the banner then tells. */
  private async openChat(site: Site, address: string, password: string): Promise<void> {
    const origins = [location.origin, site.filesOrigin];
    const chat = new Chat(site.xmppWebsocket, address, password, (code) => void this.signOut(code), origins);
    this.chat = chat;
    const patience = new Promise<void>((resolve) => setTimeout(resolve, CHAT_WAIT_MS));
    await Promise.race([chat.firstAttempt, patience]);
    if (chat.refused) throw new ApiError('wrong-credentials', 'refused by the chat server');
  }
}

export const session = new Session();

/** The text key of a location, for chips and sentences. */
export const LOCATION_TEXT: Record<Outcome['location'], { tag: Key; sentence: Key }> = {
  inside: { tag: 'discovery.insideTag', sentence: 'discovery.inside' },
  outside: { tag: 'discovery.outsideTag', sentence: 'discovery.outside' },
  manual: { tag: 'discovery.manualTag', sentence: 'discovery.manual' },
};
