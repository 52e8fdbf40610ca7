// One meeting as the page shows it: joins, follows who is there, comes back after a lost connection, leaves.
import { SvelteMap, SvelteSet } from 'svelte/reactivity';
import { backoff } from '../backoff';
import type { LocalMedia } from './local.svelte';
import { Media } from './media';
import { Signalling, type Join, type Offer, type Participant, type ServerMessage } from './signalling';

export type RoomState = 'idle' | 'joining' | 'in' | 'reconnecting' | 'left' | 'failed';

export interface Note {
  event: 'joined' | 'left';
  name: string;
}

const MAX_ATTEMPTS = 10;
const MAX_BLIND_FAILURES = 3;
const SPEAKING_MS = 400;

export class Room {
  state = $state<RoomState>('idle');
  errorCode = $state('');
  space = $state.raw<{ name: string; callId: string } | null>(null);
  selfId = $state('');
  /** State of the media path, apart from the signalling: `connected` when audio and video can flow. */
  path = $state<RTCPeerConnectionState>('new');
  note = $state.raw<Note | null>(null);
  readonly others = new SvelteMap<string, Participant>();
  readonly streams = new SvelteMap<string, MediaStream>();
  readonly speaking = new SvelteSet<string>();

  private signalling: Signalling | null = null;
  private media: Media | null = null;
  private work: Promise<void> = Promise.resolve();
  private attempt = 0;
  private blindFailures = 0;
  private retry = 0;
  /** Counts connections, so that an attempt that was overtaken notices. */
  private stay = 0;
  private request: () => Promise<Join> = () => Promise.reject(new Error('not joined'));
  private meter = 0;

  constructor(
    private readonly local: LocalMedia,
    private readonly relayOnly: boolean,
  ) {
    local.onTrack = (kind) => void this.media?.refresh(kind);
  }

  /** Joins; `request` is asked for every attempt anew. */
  join(request: () => Promise<Join>): void {
    this.request = request;
    this.state = 'joining';
    this.errorCode = '';
    this.attempt = 0;
    this.blindFailures = 0;
    addEventListener('pagehide', this.onPageHide);
    void this.connect();
  }

  /** Tells the server whether I can be heard and seen. */
  announce(): void {
    this.signalling?.send({ type: 'state', audio: this.local.micOn, video: this.local.cameraOn });
  }

  leave(): void {
    this.signalling?.send({ type: 'leave' });
    this.finish('left', '');
  }

  private readonly onPageHide = (): void => this.signalling?.send({ type: 'leave' });

  private async connect(): Promise<void> {
    const stay = this.stay;
    const join = await this.request();
    if (stay !== this.stay) return;
    const signalling: Signalling = new Signalling(
      join,
      (message) => signalling === this.signalling && this.onMessage(message),
      () => signalling === this.signalling && this.lost(),
    );
    this.signalling = signalling;
  }

  private onMessage(message: ServerMessage): void {
    if (message.type === 'joined') this.onJoined(message);
    else if (message.type === 'offer') this.work = this.work.then(() => this.onOffer(message));
    else if (message.type === 'participant') this.onParticipant(message.event, message.participant);
    else if (this.state === 'joining' || message.code !== 'bad-request') this.finish('failed', message.code);
  }

  private onJoined(message: Extract<ServerMessage, { type: 'joined' }>): void {
    this.selfId = message.participantId;
    this.space = message.space;
    this.others.clear();
    for (const person of message.participants) if (person.id !== this.selfId) this.others.set(person.id, person);
    const media: Media = new Media(message.iceServers, this.relayOnly, (kind) => this.local[kind], {
      onStreams: (streams) => media === this.media && this.onStreams(streams),
      onConnection: (state) => media === this.media && this.onPath(state),
    });
    this.media?.close();
    this.media = media;
    this.work = Promise.resolve();
    this.path = 'new';
    this.state = 'in';
    this.announce();
    clearInterval(this.meter);
    this.meter = window.setInterval(() => this.listen(), SPEAKING_MS);
  }

  private async onOffer(offer: Offer): Promise<void> {
    const media = this.media;
    if (!media) return;
    try {
      const sdp = await media.answer(offer);
      if (media === this.media) this.signalling?.send({ type: 'answer', seq: offer.seq, sdp });
    } catch {
      if (media === this.media) this.lost();
    }
  }

  private onStreams(streams: Map<string, MediaStream>): void {
    for (const id of this.streams.keys()) if (!streams.has(id)) this.streams.delete(id);
    for (const [id, stream] of streams) this.streams.set(id, stream);
  }

  private onParticipant(event: 'joined' | 'left' | 'updated', person: Participant): void {
    if (person.id === this.selfId) return;
    const before = this.others.get(person.id);
    if (event === 'left') {
      this.others.delete(person.id);
      this.streams.delete(person.id);
      this.speaking.delete(person.id);
    } else {
      this.others.set(person.id, { ...before, ...person });
    }
    if (event !== 'updated') this.note = { event, name: person.name || before?.name || '' };
  }

  private onPath(state: RTCPeerConnectionState): void {
    this.path = state;
    if (state === 'connected') {
      this.attempt = 0;
      this.blindFailures = 0;
    } else if (state === 'failed') {
      this.blindFailures += 1;
      if (this.blindFailures >= MAX_BLIND_FAILURES) this.finish('failed', 'media');
      else this.lost();
    }
  }

  private listen(): void {
    const loud = this.media?.speaking() ?? new Set<string>();
    for (const id of this.speaking) if (!loud.has(id)) this.speaking.delete(id);
    for (const id of loud) this.speaking.add(id);
  }

  private lost(): void {
    const everIn = this.state === 'in' || this.state === 'reconnecting';
    this.drop();
    if (!everIn || this.attempt >= MAX_ATTEMPTS) return this.finish('failed', 'unreachable');
    this.state = 'reconnecting';
    this.retry = window.setTimeout(() => void this.connect(), backoff(this.attempt));
    this.attempt += 1;
  }

  private drop(): void {
    this.stay += 1;
    clearTimeout(this.retry);
    clearInterval(this.meter);
    this.signalling?.close();
    this.signalling = null;
    this.media?.close();
    this.media = null;
    this.streams.clear();
    this.speaking.clear();
  }

  private finish(state: 'left' | 'failed', code: string): void {
    this.drop();
    removeEventListener('pagehide', this.onPageHide);
    this.others.clear();
    this.state = state;
    this.errorCode = code;
  }
}
