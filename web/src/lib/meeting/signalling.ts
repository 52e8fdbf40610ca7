// The messages of a meeting's WebSocket (docs/architecture.md, "Meeting signalling") and the socket that carries them.

export interface Participant {
  id: string;
  name: string;
  guest: boolean;
  audio: boolean;
  video: boolean;
}

export interface Joined {
  type: 'joined';
  participantId: string;
  space: { name: string; callId: string };
  iceServers: RTCIceServer[];
  participants: Participant[];
}

export interface Offer {
  type: 'offer';
  seq: number;
  sdp: string;
  publish: { audio?: string; video?: string };
  tracks: Array<{ mid: string; participantId: string; kind: 'audio' | 'video' }>;
}

export interface ParticipantChange {
  type: 'participant';
  event: 'joined' | 'left' | 'updated';
  participant: Participant;
}

export interface Failure {
  type: 'error';
  code: string;
  message: string;
}

export type ServerMessage = Joined | Offer | ParticipantChange | Failure;

export interface Join {
  callId: string;
  passcode?: string;
  secret?: string;
  name?: string;
  token?: string;
}

export type ClientMessage =
  | ({ type: 'join' } & Join)
  | { type: 'answer'; seq: number; sdp: string }
  | { type: 'state'; audio: boolean; video: boolean }
  | { type: 'leave' };

const isObject = (value: unknown): value is Record<string, unknown> => typeof value === 'object' && value !== null;

/** Reads one text message; null for a type this client does not know or a shape that cannot be meant. */
export function readMessage(text: string): ServerMessage | null {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return null;
  }
  if (!isObject(value)) return null;
  switch (value['type']) {
    case 'joined':
      return typeof value['participantId'] === 'string' && isObject(value['space']) && Array.isArray(value['participants'])
        ? ({ iceServers: [], ...value } as unknown as Joined)
        : null;
    case 'offer':
      return typeof value['seq'] === 'number' && typeof value['sdp'] === 'string'
        ? ({ publish: {}, tracks: [], ...value } as unknown as Offer)
        : null;
    case 'participant':
      return isObject(value['participant']) && typeof value['participant']['id'] === 'string'
        ? (value as unknown as ParticipantChange)
        : null;
    case 'error':
      return { type: 'error', code: String(value['code'] ?? 'internal'), message: String(value['message'] ?? '') };
    default:
      return null;
  }
}

/** One connection: says `join` when open, hands over messages in order, and reports its end once. */
export class Signalling {
  private readonly socket: WebSocket;
  private ended = false;

  constructor(join: Join, onMessage: (message: ServerMessage) => void, onEnd: () => void) {
    const scheme = location.protocol === 'https:' ? 'wss' : 'ws';
    this.socket = new WebSocket(`${scheme}://${location.host}/meet/ws`);
    this.socket.onopen = () => this.send({ type: 'join', ...join });
    this.socket.onmessage = (event) => {
      const message = typeof event.data === 'string' ? readMessage(event.data) : null;
      if (message && !this.ended) onMessage(message);
    };
    this.socket.onclose = () => {
      if (!this.ended) onEnd();
      this.ended = true;
    };
  }

  send(message: ClientMessage): void {
    if (this.socket.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify(message));
  }

  /** Closes without a report. */
  close(): void {
    this.ended = true;
    this.socket.close();
  }
}
