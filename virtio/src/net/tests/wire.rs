//! Two ends of a wire.

use super::*;

fn receive(wire: &mut Wire, room: usize) -> Result<(usize, Vec<u8>), Refusal> {
    let mut bytes = vec![0; room];
    let (first, second) = bytes.split_at_mut(room / 3);
    let slices = [VolatileSlice::from(first), VolatileSlice::from(second)];
    let len = wire.receive(&mut Header::default(), &slices)?;
    Ok((len, bytes))
}

fn send_frame(wire: &mut Wire, mut bytes: Vec<u8>) -> Result<(), Refusal> {
    let slices = [VolatileSlice::from(bytes.as_mut_slice())];
    wire.send(&Header::default(), &slices)
}

#[test]
fn frames_stay_whole_and_tell_how_long_they_were() {
    let (mut one, mut other) = Wire::pair().unwrap();
    assert!(matches!(receive(&mut other, 100), Err(Refusal::Busy)));
    send_frame(&mut one, frame(90)).unwrap();
    send_frame(&mut one, frame(200)).unwrap();
    let (len, bytes) = receive(&mut other, 100).unwrap();
    assert_eq!((len, &bytes[..90]), (90, frame(90).as_slice()));
    let (len, bytes) = receive(&mut other, 100).unwrap();
    assert_eq!((len, bytes), (200, frame(200)[..100].to_vec()));
    drop(one);
    assert!(matches!(receive(&mut other, 100), Err(Refusal::Gone(_))));
    assert!(matches!(
        send_frame(&mut other, frame(60)),
        Err(Refusal::Gone(_))
    ));
}

#[test]
fn two_cards_on_a_wire_hear_each_other() {
    let (wire, host) = Wire::pair().unwrap();
    let device = Net::new(wire, MAC).unwrap();
    let features = device.spec().features;
    let mut driver = crate::testing::Driver::mmio(Box::new(device));
    driver.start(features);
    for _ in 0..8 {
        driver.send(RX, &[], &[2048]);
    }
    let mut host = host;
    for round in 0..20 {
        send_frame(&mut host, frame(60 + round)).unwrap();
        let (_, bytes) = driver.receive(RX);
        assert_eq!(bytes[12..], frame(60 + round));
        driver.send(RX, &[], &[2048]);
        driver.send(TX, &[&[0; 12], &frame(70)], &[]);
        driver.receive(TX);
        assert_eq!(receive(&mut host, 100).unwrap().0, 70);
    }
}
