// The peer connection of one stay in a meeting: answers the server's offers, maps tracks to people by mid.
import type { Offer } from './signalling';

type Kind = 'audio' | 'video';

export interface MediaEvents {
  /** Streams by participant, complete after every offer. */
  onStreams(streams: Map<string, MediaStream>): void;
  onConnection(state: RTCPeerConnectionState): void;
}

export class Media {
  private readonly pc: RTCPeerConnection;
  private readonly senders: Partial<Record<Kind, RTCRtpSender>> = {};
  private readonly streams = new Map<string, MediaStream>();
  private readonly audioOf = new Map<string, RTCRtpReceiver>();

  constructor(
    iceServers: RTCIceServer[],
    relayOnly: boolean,
    private readonly local: (kind: Kind) => MediaStreamTrack | null,
    private readonly events: MediaEvents,
  ) {
    this.pc = new RTCPeerConnection({ iceServers, iceTransportPolicy: relayOnly ? 'relay' : 'all', bundlePolicy: 'max-bundle' });
    this.pc.onconnectionstatechange = () => events.onConnection(this.pc.connectionState);
  }

  /** Applies an offer and resolves with the answer's SDP. Rejects when the browser cannot use the offer. */
  async answer(offer: Offer): Promise<string> {
    await this.pc.setRemoteDescription({ type: 'offer', sdp: offer.sdp });
    const byMid = new Map(this.pc.getTransceivers().map((transceiver) => [transceiver.mid, transceiver]));
    for (const kind of ['audio', 'video'] as const) {
      const transceiver = byMid.get(offer.publish[kind] ?? '');
      if (!transceiver) continue;
      transceiver.direction = 'sendonly';
      this.senders[kind] = transceiver.sender;
      await transceiver.sender.replaceTrack(this.local(kind));
    }
    this.map(offer, byMid);
    await this.pc.setLocalDescription(await this.pc.createAnswer());
    return this.pc.localDescription?.sdp ?? '';
  }

  private map(offer: Offer, byMid: Map<string | null, RTCRtpTransceiver>): void {
    const wanted = new Map<string, MediaStreamTrack[]>();
    this.audioOf.clear();
    for (const { mid, participantId, kind } of offer.tracks) {
      const receiver = byMid.get(mid)?.receiver;
      if (!receiver) continue;
      wanted.set(participantId, [...(wanted.get(participantId) ?? []), receiver.track]);
      if (kind === 'audio') this.audioOf.set(participantId, receiver);
    }
    for (const id of this.streams.keys()) if (!wanted.has(id)) this.streams.delete(id);
    for (const [id, tracks] of wanted) {
      const stream = this.streams.get(id) ?? new MediaStream();
      for (const old of stream.getTracks()) if (!tracks.includes(old)) stream.removeTrack(old);
      for (const track of tracks) stream.addTrack(track);
      this.streams.set(id, stream);
    }
    this.events.onStreams(new Map(this.streams));
  }

  /** Sends what the device now gives for a kind: a new track, or nothing. */
  async refresh(kind: Kind): Promise<void> {
    await this.senders[kind]?.replaceTrack(this.local(kind)).catch(() => undefined);
  }

  /** Who is loud enough right now to be called speaking. */
  speaking(): Set<string> {
    const loud = new Set<string>();
    for (const [id, receiver] of this.audioOf) {
      if ((receiver.getSynchronizationSources()[0]?.audioLevel ?? 0) > 0.02) loud.add(id);
    }
    return loud;
  }

  close(): void {
    this.pc.onconnectionstatechange = null;
    this.pc.close();
  }
}
