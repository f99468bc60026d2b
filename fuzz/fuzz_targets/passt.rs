//! A stream of frames that is anything and is cut anywhere: the same frames come of it whatever the
//! cuts, no more than were sent, and an error is an error for good.

#![no_main]

use libfuzzer_sys::fuzz_target;
use virtio::net::passt::framing::Inbox;

/// All frames of a stream that comes in steps, each behind its length, and whether it ended with an
/// error.
fn frames(stream: &[u8], step: usize) -> (Vec<u8>, bool) {
    let mut inbox = Inbox::default();
    let (mut left, mut frames) = (stream, Vec::new());
    loop {
        let ready = inbox.is_ready();
        match inbox.take() {
            Err(_) => {
                assert!(ready && inbox.take().is_err());
                return (frames, true);
            }
            Ok(Some(frame)) => {
                assert!(ready && !frame.is_empty());
                frames.extend((frame.len() as u32).to_be_bytes());
                frames.extend(frame);
                continue;
            }
            Ok(None) => assert!(!ready),
        }
        if left.is_empty() {
            return (frames, false);
        }
        let room = inbox.room();
        assert!(!room.is_empty(), "there is room while no frame is complete");
        let count = step.min(room.len()).min(left.len());
        room[..count].copy_from_slice(&left[..count]);
        left = &left[count..];
        inbox.advance(count);
    }
}

fuzz_target!(|data: &[u8]| {
    let Some(([step, repeat, short], data)) = data.split_first_chunk::<3>() else {
        return;
    };
    // Lengths of one byte's worth are found sooner than those of four.
    let mut stream = Vec::new();
    for piece in data.chunks(usize::from(*short) + 1) {
        if repeat & 1 != 0 {
            stream.extend((piece.len() as u32).to_be_bytes());
        }
        stream.extend(piece);
    }
    // Few are long enough for what is left to be moved to the buffer's other half.
    let stream = stream.repeat(match repeat >> 4 {
        15 => 240,
        few => usize::from(few) + 1,
    });
    let whole = frames(&stream, usize::MAX);
    assert_eq!(frames(&stream, usize::from(*step) + 1), whole);
    assert!(stream.starts_with(&whole.0), "other frames than were sent");
    assert!(repeat & 1 == 0 || !whole.1);
});
