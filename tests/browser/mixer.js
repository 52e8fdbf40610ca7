// The media side of the stand-in meeting server: one peer connection per participant, in a page of the same browser.
// Offers, as the real server does; forwards every participant's tracks to all the others.
const people = new Map();

function begin(id) {
  const pc = new RTCPeerConnection();
  const publish = { audio: pc.addTransceiver('audio', { direction: 'recvonly' }), video: pc.addTransceiver('video', { direction: 'recvonly' }) };
  people.set(id, { pc, publish, forwarded: new Map() });
}

async function offer(id) {
  const me = people.get(id);
  for (const [other, { publish }] of people) {
    if (other === id || me.forwarded.has(other)) continue;
    me.forwarded.set(other, ['audio', 'video'].map((kind) => me.pc.addTransceiver(publish[kind].receiver.track, { direction: 'sendonly' })));
  }
  for (const [other, transceivers] of me.forwarded) {
    if (people.has(other)) continue;
    transceivers.forEach((transceiver) => (transceiver.direction = 'inactive'));
  }
  await me.pc.setLocalDescription(await me.pc.createOffer());
  if (me.pc.iceGatheringState !== 'complete') {
    await new Promise((done) => (me.pc.onicegatheringstatechange = () => me.pc.iceGatheringState === 'complete' && done()));
  }
  const tracks = [...me.forwarded].filter(([other]) => people.has(other)).flatMap(([other, transceivers]) =>
    transceivers.map((transceiver, index) => ({ mid: transceiver.mid, participantId: other, kind: index ? 'video' : 'audio' })));
  return { sdp: me.pc.localDescription.sdp, publish: { audio: me.publish.audio.mid, video: me.publish.video.mid }, tracks };
}

const answer = (id, sdp) => people.get(id).pc.setRemoteDescription({ type: 'answer', sdp });

function end(id) {
  people.get(id)?.pc.close();
  people.delete(id);
}
