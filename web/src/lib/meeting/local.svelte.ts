// This device's microphone and camera: asked for once, switched by the person, released at the end.
import { deviceProblem, type DeviceProblem } from './devices';

const AUDIO: MediaTrackConstraints = { echoCancellation: true, noiseSuppression: true, autoGainControl: true };
const VIDEO: MediaTrackConstraints = {
  width: { ideal: 640 },
  height: { ideal: 360 },
  frameRate: { ideal: 24, max: 30 },
  facingMode: 'user',
};

export class LocalMedia {
  audio = $state.raw<MediaStreamTrack | null>(null);
  video = $state.raw<MediaStreamTrack | null>(null);
  micOn = $state(false);
  cameraOn = $state(false);
  problem = $state<DeviceProblem | null>(null);
  asking = $state(false);
  /** What a `<video>` shows of oneself. */
  readonly preview = $derived(this.video ? new MediaStream([this.video]) : null);

  /** Called when a track was replaced, so that senders follow. */
  onTrack: (kind: 'audio' | 'video') => void = () => undefined;
  private closed = false;

  /** Asks for the devices wanted; on failure keeps what could be had and sets `problem`. Never throws. */
  async start(want: { mic: boolean; camera: boolean }): Promise<void> {
    this.asking = true;
    this.problem = null;
    try {
      await this.obtain(true, want.camera);
    } catch (error) {
      this.problem = deviceProblem(error);
      if (this.problem !== 'insecure' && want.camera) await this.startAlone();
    }
    this.asking = false;
    this.setMic(want.mic && this.audio !== null);
    this.cameraOn = this.video !== null;
  }

  /** One device may be missing, taken or forbidden while the other works. */
  private async startAlone(): Promise<void> {
    await this.obtain(true, false).catch(() => undefined);
    await this.obtain(false, true).catch(() => undefined);
    if (this.audio) this.problem = 'noCamera';
    else if (this.video) this.problem = 'noMic';
  }

  private async obtain(audio: boolean, video: boolean): Promise<void> {
    if (!navigator.mediaDevices) throw new DOMException('no media devices', 'SecurityError');
    const stream = await navigator.mediaDevices.getUserMedia({ audio: audio && AUDIO, video: video && VIDEO });
    for (const track of stream.getTracks()) this.take(track);
  }

  private take(track: MediaStreamTrack): void {
    if (this.closed) return track.stop();
    track.onended = () => this.lost(track);
    if (track.kind === 'audio') this.audio = track;
    else this.video = track;
    this.onTrack(track.kind === 'audio' ? 'audio' : 'video');
  }

  private lost(track: MediaStreamTrack): void {
    if (track === this.audio) {
      this.audio = null;
      this.micOn = false;
      this.onTrack('audio');
    } else if (track === this.video) {
      this.video = null;
      this.cameraOn = false;
      this.onTrack('video');
    }
  }

  async toggleMic(): Promise<void> {
    if (!this.audio) await this.again(true, false);
    this.setMic(!this.micOn && this.audio !== null);
  }

  /** Off releases the camera, so that its light goes out. */
  async toggleCamera(): Promise<void> {
    if (this.video) {
      this.video.onended = null;
      this.video.stop();
      this.lost(this.video);
    } else {
      await this.again(false, true);
      this.cameraOn = this.video !== null;
    }
  }

  private async again(audio: boolean, video: boolean): Promise<void> {
    this.problem = null;
    this.asking = true;
    await this.obtain(audio, video).catch((error: unknown) => (this.problem = deviceProblem(error)));
    this.asking = false;
  }

  private setMic(on: boolean): void {
    this.micOn = on;
    if (this.audio) this.audio.enabled = on;
  }

  close(): void {
    this.closed = true;
    for (const track of [this.audio, this.video]) {
      if (!track) continue;
      track.onended = null;
      track.stop();
    }
    this.audio = null;
    this.video = null;
    this.micOn = false;
    this.cameraOn = false;
  }
}
