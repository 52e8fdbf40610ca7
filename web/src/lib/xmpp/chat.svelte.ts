// The state that the chat screens show: contacts, presence, requests, conversations. Fed by a Wire, rebuilt at each stream.
import { SvelteMap } from 'svelte/reactivity';
import { archiveQuery, chatMessage, presence, receipt, rosterGet, rosterRemove, rosterSet, subscription } from './compose';
import { History, type Past } from './history';
import { bare, localPart, resource } from './jid';
import { advance, insertAt, isRepeat, merge, type Message, type MessageState } from './conversation';
import { readMessage, readPresence, readRoster, strongest, type RosterItem, type Show } from './stanzas';
import { UploadError, Uploader } from './upload';
import { Wire, type LinkState } from './wire';

export interface Contact {
  address: string;
  name: string;
  show: Show;
  known: boolean;
  pending: boolean;
}

export type OwnShow = Exclude<Show, 'offline'>;

const MAX_KEPT = 2000;
const PAGE = 40;
const SCREENFUL = 30;
const MAX_STRANGERS = 200;

class Conversation {
  messages = $state<Message[]>([]);
  unread = $state(0);
  draft = $state('');
  /** The archive id before which older messages are; '' before anything was asked for. */
  oldest = '';
  /** Whether the archive has nothing older. */
  whole = $state(false);
  loading = $state(false);
}

export class Chat {
  link = $state<LinkState>('stopped');
  retryAt = $state(0);
  refused = false;
  /** Resolves when the first attempt to connect has ended, well or badly. */
  readonly firstAttempt: Promise<void>;
  ownShow = $state<OwnShow>('available');
  requests = $state<string[]>([]);
  open = $state<string | null>(null);

  private readonly roster = new SvelteMap<string, RosterItem>();
  private readonly devices = new SvelteMap<string, Map<string, { show: Show; priority: number }>>();
  private readonly conversations = new SvelteMap<string, Conversation>();
  private readonly wire: Wire;
  private readonly uploader: Uploader;
  private readonly history: History;
  private confirming = false;
  private counter = 0;
  private worked = false;
  private readonly prefix = crypto.randomUUID();
  private attempted = (): void => undefined;

  /** Connects at once. `onEnd` hears of a session that the server ended after it had worked, as a text code. */
  constructor(
    url: string,
    readonly self: string,
    password: string,
    private readonly onEnd: (code: string) => void,
    /** Where links of our own files may point. */
    readonly fileOrigins: readonly string[] = [],
  ) {
    this.firstAttempt = new Promise((resolve) => (this.attempted = resolve));
    this.wire = new Wire(url, self, password, {
      onState: (state, waitMs) => this.onState(state, waitMs),
      onReady: () => void this.resync(),
      onPresence: (stanza) => this.onPresence(stanza),
      onMessage: (stanza) => this.onMessage(stanza),
      onRosterPush: (stanza) => this.onRoster(readRoster(stanza)),
      onRefused: () => this.onRefused(),
    });
    this.uploader = new Uploader(self.slice(self.indexOf('@') + 1), (stanza) => this.wire.request(stanza), fileOrigins);
    this.history = new History(self, (query, address, before) => this.wire.request(archiveQuery(query, address, before, PAGE)));
    this.wire.start();
  }

  /** Everybody in the list: the roster, and people outside it who wrote. Newest conversation first, then by name. */
  get contacts(): Contact[] {
    const strangers = [...this.conversations.keys()].filter((address) => !this.roster.has(address));
    return [...this.roster.keys(), ...strangers].map((address) => this.contact(address)).sort((a, b) => this.compare(a, b));
  }

  get unread(): number {
    let sum = 0;
    for (const conversation of this.conversations.values()) sum += conversation.unread;
    return sum;
  }

  contact(address: string): Contact {
    const item = this.roster.get(address);
    return {
      address,
      name: item?.name || localPart(address),
      show: strongest(this.devices.get(address)?.values() ?? []),
      known: item !== undefined,
      pending: item !== undefined && item.asked && item.subscription !== 'to' && item.subscription !== 'both',
    };
  }

  messages(address: string): Message[] {
    return this.conversations.get(address)?.messages ?? [];
  }

  unreadOf(address: string): number {
    return this.conversations.get(address)?.unread ?? 0;
  }

  draft(address: string): string {
    return this.conversations.get(address)?.draft ?? '';
  }

  setDraft(address: string, text: string): void {
    const conversation = this.conversations.get(address);
    if (conversation) conversation.draft = text;
  }

  /** Shows a conversation (null: none) and marks it read. */
  show(address: string | null): void {
    this.open = address;
    if (address) this.fill(address);
    this.markRead();
  }

  /** Whether older messages of a conversation are on their way. */
  loading(address: string): boolean {
    return this.conversations.get(address)?.loading ?? false;
  }

  /** Puts the page of messages before those on screen above them, out of the archive. */
  async loadOlder(address: string): Promise<void> {
    const conversation = this.conversation(address);
    if (conversation.loading || conversation.whole || this.link !== 'online') return;
    conversation.loading = true;
    try {
      const page = await this.history.page(address, conversation.oldest);
      merge(conversation.messages, page.messages.flatMap(remembered), conversation.oldest);
      conversation.oldest = page.oldest || conversation.oldest;
      conversation.whole = page.complete;
    } catch {
      // Without an archive, or without a stream, the conversation is what this page has seen.
    } finally {
      conversation.loading = false;
    }
  }

  /** What fits on a screen, so that there is something to scroll up from. */
  private fill(address: string): void {
    const conversation = this.conversation(address);
    if (!conversation.oldest || conversation.messages.length < SCREENFUL) void this.loadOlder(address);
  }

  /** The newest messages of all conversations: whom one spoke with last, and what was missed while away. */
  private async loadRecent(): Promise<void> {
    try {
      const page = await this.history.page(null, '');
      for (const address of new Set(page.messages.map((message) => message.with))) {
        const conversation = this.conversation(address);
        const own = page.messages.filter((message) => message.with === address);
        merge(conversation.messages, own.flatMap(remembered), '');
        conversation.oldest ||= own[0]?.archiveId ?? '';
      }
    } catch {
      // No archive: nothing to show.
    }
  }

  markRead(): void {
    const conversation = this.open ? this.conversations.get(this.open) : undefined;
    if (conversation && document.visibilityState === 'visible') conversation.unread = 0;
  }

  say(to: string, body: string): void {
    this.append(to, body, 'queued');
    this.sendQueued();
  }

  /** Uploads a file and sends its link. Raises UploadError; the failed message stays on screen. */
  async attach(to: string, file: File): Promise<void> {
    const message = this.append(to, file.name, 'uploading');
    try {
      const link = await this.uploader.upload(file, (share) => (message.progress = share));
      message.body = message.file = link;
      message.state = 'queued';
      this.sendQueued();
    } catch (error) {
      message.state = 'failed';
      throw error instanceof UploadError ? error : new UploadError('failed');
    }
  }

  private append(to: string, body: string, state: MessageState): Message {
    this.counter += 1;
    const conversation = this.conversation(to);
    conversation.messages.push({ id: `${this.prefix}-${this.counter}`, mine: true, body, at: new Date(), state });
    conversation.messages.splice(0, Math.max(0, conversation.messages.length - MAX_KEPT));
    return conversation.messages.at(-1) as Message; // the reactive one, not the literal
  }

  setOwnShow(show: OwnShow): void {
    this.ownShow = show;
    this.announce();
  }

  /** Puts somebody into the roster and asks to see their presence. */
  async add(address: string): Promise<void> {
    await this.wire.request(rosterSet(address, this.roster.get(address)?.name || localPart(address)));
    this.wire.send(subscription(address, 'subscribe'));
  }

  async remove(address: string): Promise<void> {
    await this.wire.request(rosterRemove(address));
    this.conversations.delete(address);
    if (this.open === address) this.open = null;
  }

  async answerRequest(address: string, accept: boolean): Promise<void> {
    this.requests = this.requests.filter((other) => other !== address);
    this.wire.send(subscription(address, accept ? 'subscribed' : 'unsubscribed'));
    const item = this.roster.get(address);
    if (accept && item?.subscription !== 'to' && item?.subscription !== 'both' && !item?.asked) await this.add(address);
  }

  connectNow(): void {
    this.wire.wake();
  }

  stop(): void {
    this.wire.stop();
  }

  private compare(a: Contact, b: Contact): number {
    const latest = (contact: Contact) => this.messages(contact.address).at(-1)?.at.getTime() ?? 0;
    const order: Record<Show, number> = { available: 0, dnd: 1, away: 1, offline: 2 };
    return latest(b) - latest(a) || order[a.show] - order[b.show] || a.name.localeCompare(b.name);
  }

  private conversation(address: string): Conversation {
    let found = this.conversations.get(address);
    if (!found) {
      found = new Conversation();
      this.conversations.set(address, found);
    }
    return found;
  }

  private onRefused(): void {
    this.refused = true;
    this.attempted();
    if (this.worked) this.onEnd('session-replaced');
  }

  private onState(state: LinkState, waitMs: number): void {
    this.link = state;
    this.retryAt = state === 'waiting' ? Date.now() + waitMs : 0;
    if (state !== 'connecting') this.attempted();
    if (state === 'online') this.worked = true;
    if (state === 'online') return;
    this.devices.clear();
    this.confirming = false;
    for (const conversation of this.conversations.values()) {
      for (const message of conversation.messages) if (message.mine) message.state = advance(message.state, 'queued');
    }
  }

  private async resync(): Promise<void> {
    try {
      const answer = await this.wire.request(rosterGet());
      this.roster.clear();
      this.onRoster(readRoster(answer));
    } catch {
      // The roster of the last stream stays on screen; messages work without it.
    }
    await this.loadRecent();
    if (this.open) this.fill(this.open);
    this.announce();
    this.sendQueued();
  }

  private announce(): void {
    this.wire.send(presence(this.ownShow));
  }

  private sendQueued(): void {
    const queued = [...this.conversations.entries()].flatMap(([to, conversation]) =>
      conversation.messages.filter((m) => m.mine && m.state === 'queued').map((message) => ({ to, message })),
    );
    queued.sort((a, b) => a.message.at.getTime() - b.message.at.getTime());
    for (const { to, message } of queued) {
      if (this.wire.send(chatMessage(to, message.id, message.body, message.file))) message.state = advance(message.state, 'sending');
    }
    if (queued.length > 0) void this.confirm();
  }

  /** Marks what was sent before a ping as received by the server when the answer comes. */
  private async confirm(): Promise<void> {
    if (this.confirming) return;
    this.confirming = true;
    try {
      for (let waiting = this.sending(); waiting.length > 0; waiting = this.sending()) {
        await this.wire.flushed();
        for (const message of waiting) message.state = advance(message.state, 'sent');
      }
    } catch {
      // The stream is gone; onState has put them back into the queue.
    } finally {
      this.confirming = false;
    }
  }

  private sending(): Message[] {
    return [...this.conversations.values()].flatMap((c) => c.messages.filter((m) => m.mine && m.state === 'sending'));
  }

  private onRoster(items: RosterItem[]): void {
    for (const item of items) {
      if (item.subscription === 'remove') {
        this.roster.delete(item.address);
        this.devices.delete(item.address);
      } else {
        this.roster.set(item.address, item);
      }
    }
  }

  private onPresence(stanza: Element): void {
    const news = readPresence(stanza);
    if (!news) return;
    const address = bare(news.from);
    if (news.type === 'subscribe') this.onSubscribe(address);
    if (news.type !== 'presence' || address === this.self) return;
    const devices = new Map(this.devices.get(address));
    const from = resource(news.from);
    devices.delete(from);
    if (news.show !== 'offline') devices.set(from, { show: news.show, priority: news.priority });
    else if (!from) devices.clear();
    if (devices.size > 0) this.devices.set(address, devices);
    else this.devices.delete(address);
  }

  private onSubscribe(address: string): void {
    const item = this.roster.get(address);
    // Whoever we asked ourselves may see us: asking again would only be a second click for the same decision.
    if (item && (item.asked || item.subscription === 'to' || item.subscription === 'both')) {
      this.wire.send(subscription(address, 'subscribed'));
    } else if (!this.requests.includes(address) && this.requests.length < MAX_STRANGERS) {
      this.requests = [...this.requests, address];
    }
  }

  private onMessage(stanza: Element): void {
    if (this.history.take(stanza)) return;
    const message = readMessage(stanza);
    if (!message) return;
    const address = bare(message.from);
    if (message.error) return this.mark(address, message.id, 'failed');
    if (message.receiptFor) this.mark(address, message.receiptFor, 'delivered');
    if (!message.body) return;
    if (!this.roster.has(address) && !this.conversations.has(address) && this.strangers() >= MAX_STRANGERS) return;
    if (message.wantsReceipt && message.id) {
      this.wire.send(receipt(message.from, message.id));
    }
    this.receive(address, message.id, message.body, message.at, message.file);
  }

  private receive(address: string, id: string, body: string, storedAt: Date | null, file: string | null): void {
    const conversation = this.conversation(address);
    if (isRepeat(conversation.messages, id)) return;
    const message: Message = { id, mine: false, body, at: storedAt ?? new Date(), state: 'received' };
    if (file) message.file = file;
    conversation.messages.splice(insertAt(conversation.messages, message, storedAt !== null), 0, message);
    conversation.messages.splice(0, Math.max(0, conversation.messages.length - MAX_KEPT));
    if (this.open !== address || document.visibilityState !== 'visible') conversation.unread += 1;
  }

  private mark(address: string, id: string, state: MessageState): void {
    const message = this.conversations.get(address)?.messages.findLast((m) => m.mine && m.id === id);
    if (message) message.state = advance(message.state, state);
  }

  private strangers(): number {
    return [...this.conversations.keys()].filter((address) => !this.roster.has(address)).length;
  }
}

/** A message of the archive as it is shown; none for what has no words. */
function remembered(past: Past): Message[] {
  if (!past.body) return [];
  const { archiveId, mine, body, at } = past;
  const message: Message = { id: past.id || archiveId, mine, body, at, state: mine ? 'sent' : 'received', archiveId };
  if (past.file) message.file = past.file;
  return [message];
}
