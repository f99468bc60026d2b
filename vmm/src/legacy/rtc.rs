//! The CMOS clock (Motorola MC146818), ports 0x70 and 0x71.
//!
//! The time is the host's, in UTC, and can't be set. It is shown in one format only, the one
//! that all PCs use: packed BCD, 24 hours, two digits of the year and two of the century. The
//! registers are computed when they are read, so no update is ever in progress; whoever reads the
//! seconds twice notices a carry, as on the real clock.
//!
//! There are no alarms and no periodic interrupts. The bytes that are not the clock's are plain
//! memory, lost at the end of the machine.

use super::{read_each, write_each};
use crate::bus::{Action, BusDeviceMut};
use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

const INDEX: u64 = 0;
const DATA: u64 = 1;
/// Bit 7 of the index port masks the NMI, which nobody sends.
const INDEX_MASK: u8 = 0x7f;

const SECONDS: u8 = 0x00;
const MINUTES: u8 = 0x02;
const HOURS: u8 = 0x04;
const DAY_OF_WEEK: u8 = 0x06;
const DAY_OF_MONTH: u8 = 0x07;
const MONTH: u8 = 0x08;
const YEAR: u8 = 0x09;
const REGISTER_A: u8 = 0x0a;
const REGISTER_B: u8 = 0x0b;
const REGISTER_C: u8 = 0x0c;
const REGISTER_D: u8 = 0x0d;
/// Where PCs have the century, and the FADT says so.
pub const CENTURY: u8 = 0x32;

/// No update in progress (bit 7), 32,768 Hz crystal, rate 1,024 Hz.
const REGISTER_A_VALUE: u8 = 0x26;
/// 24 hours (bit 1), BCD (bit 2 clear), no interrupts.
const REGISTER_B_VALUE: u8 = 1 << 1;
/// The battery is fine.
const REGISTER_D_VALUE: u8 = 1 << 7;

/// The clock and the memory beside it.
pub struct Rtc {
    index: u8,
    memory: [u8; 128],
    /// Seconds since 1970.
    now: Box<dyn Fn() -> u64 + Send>,
}

impl Rtc {
    /// A clock that shows the host's time.
    pub fn new() -> Self {
        Self::with_clock(|| {
            SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |time| time.as_secs())
        })
    }

    /// A clock that shows `now`, in seconds since 1970.
    pub fn with_clock(now: impl Fn() -> u64 + Send + 'static) -> Self {
        Rtc {
            index: 0,
            memory: [0; 128],
            now: Box::new(now),
        }
    }

    fn get(&self) -> u8 {
        let time = || Civil::from_unix((self.now)());
        match self.index {
            SECONDS => bcd(time().second),
            MINUTES => bcd(time().minute),
            HOURS => bcd(time().hour),
            DAY_OF_WEEK => bcd(time().weekday),
            DAY_OF_MONTH => bcd(time().day),
            MONTH => bcd(time().month),
            YEAR => bcd(time().year % 100),
            CENTURY => bcd(time().year / 100),
            REGISTER_A => REGISTER_A_VALUE,
            REGISTER_B => REGISTER_B_VALUE,
            REGISTER_C => 0,
            REGISTER_D => REGISTER_D_VALUE,
            index => self.memory.get(usize::from(index)).copied().unwrap_or(0xff),
        }
    }

    /// The clock's own registers are computed, so what is stored for them is never seen.
    fn set(&mut self, value: u8) {
        if let Some(byte) = self.memory.get_mut(usize::from(self.index)) {
            *byte = value;
        }
    }
}

impl Default for Rtc {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Rtc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rtc")
            .field("index", &self.index)
            .finish_non_exhaustive()
    }
}

impl BusDeviceMut for Rtc {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        // The index port can't be read on a PC.
        read_each(offset, data, |register| {
            if register == DATA { self.get() } else { 0xff }
        });
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> Action {
        write_each(offset, data, |register, value| {
            match register {
                INDEX => self.index = value & INDEX_MASK,
                DATA => self.set(value),
                _ => {}
            }
            Action::None
        })
    }
}

/// Packed BCD of the last two decimal digits.
fn bcd(value: u64) -> u8 {
    let value = u8::try_from(value % 100).unwrap_or(0);
    ((value / 10) << 4) | (value % 10)
}

/// A point in time as the registers have it.
#[derive(Debug, PartialEq, Eq)]
struct Civil {
    year: u64,
    month: u64,
    day: u64,
    /// Sunday is 1.
    weekday: u64,
    hour: u64,
    minute: u64,
    second: u64,
}

impl Civil {
    /// Counts in years that begin in March, so that the leap day is the last one, and in eras of
    /// 400 years, after which the calendar repeats.
    fn from_unix(seconds: u64) -> Self {
        const DAY: u64 = 86_400;
        const DAYS_IN_ERA: u64 = 146_097;
        /// From 0000-03-01 to 1970-01-01.
        const DAYS_TO_1970: u64 = 719_468;

        let since_1970 = seconds / DAY;
        let days = since_1970 + DAYS_TO_1970;
        let in_era = days % DAYS_IN_ERA;
        let leap_days = in_era / 1_460 + in_era / 146_096 - in_era / 36_524;
        let year_of_era = (in_era - leap_days) / 365;
        let day_of_year = in_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        // March is 0. Five months from March or August on have 153 days.
        let month = (5 * day_of_year + 2) / 153;
        let january_or_february = month >= 10;
        Civil {
            year: days / DAYS_IN_ERA * 400 + year_of_era + u64::from(january_or_february),
            month: if january_or_february {
                month - 9
            } else {
                month + 3
            },
            day: day_of_year - (153 * month + 2) / 5 + 1,
            // 1970 began on a Thursday.
            weekday: (since_1970 + 4) % 7 + 1,
            hour: seconds % DAY / 3_600,
            minute: seconds % 3_600 / 60,
            second: seconds % 60,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(rtc: &mut Rtc, index: u8) -> u8 {
        let _ = rtc.write(0, &[index]);
        let mut data = [0];
        rtc.read(1, &mut data);
        data[0]
    }

    /// Century, year, month, day, weekday, hour, minute, second as the guest reads them.
    fn time(seconds: u64) -> [u8; 8] {
        let mut rtc = Rtc::with_clock(move || seconds);
        [
            CENTURY,
            YEAR,
            MONTH,
            DAY_OF_MONTH,
            DAY_OF_WEEK,
            HOURS,
            MINUTES,
            SECONDS,
        ]
        .map(|index| read(&mut rtc, index))
    }

    #[test]
    fn known_moments_read_as_their_date_in_bcd() {
        assert_eq!(time(0), [0x19, 0x70, 1, 1, 5, 0, 0, 0]);
        assert_eq!(time(951_782_400), [0x20, 0, 2, 0x29, 3, 0, 0, 0]);
        assert_eq!(time(951_868_799), [0x20, 0, 2, 0x29, 3, 0x23, 0x59, 0x59]);
        assert_eq!(time(951_868_800), [0x20, 0, 3, 1, 4, 0, 0, 0]);
        assert_eq!(
            time(1_767_225_599),
            [0x20, 0x25, 0x12, 0x31, 4, 0x23, 0x59, 0x59]
        );
        assert_eq!(time(2_147_483_648), [0x20, 0x38, 1, 0x19, 3, 3, 0x14, 8]);
        assert_eq!(time(4_107_542_400), [0x21, 0, 3, 1, 2, 0, 0, 0]);
    }

    #[test]
    fn each_day_of_800_years_follows_the_one_before() {
        let leap = |year: u64| {
            year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
        };
        let mut expected = (1970, 1, 1);
        for day in 0..292_194 {
            let civil = Civil::from_unix(day * 86_400);
            assert_eq!((civil.year, civil.month, civil.day), expected);
            let (year, month, date) = expected;
            let length = match month {
                2 => 28 + u64::from(leap(year)),
                4 | 6 | 9 | 11 => 30,
                _ => 31,
            };
            expected = match (date == length, month) {
                (false, _) => (year, month, date + 1),
                (true, 12) => (year + 1, 1, 1),
                (true, _) => (year, month + 1, 1),
            };
        }
    }

    #[test]
    fn the_end_of_time_does_not_overflow() {
        time(u64::MAX);
    }

    #[test]
    fn the_host_clock_is_shown_within_a_minute() {
        let unix = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap()
            .as_secs();
        let mut rtc = Rtc::new();
        let hour = read(&mut rtc, HOURS);
        assert!(
            [unix, unix + 60]
                .map(|s| bcd(s % 86_400 / 3600))
                .contains(&hour)
        );
    }

    #[test]
    fn the_state_says_valid_bcd_24_hours_and_no_update() {
        let mut rtc = Rtc::with_clock(|| 0);
        assert_eq!(
            [10, 11, 12, 13].map(|index| read(&mut rtc, index)),
            [0x26, 0x02, 0, 0x80]
        );
    }

    #[test]
    fn every_value_in_every_register_leaves_clock_and_state_alone_and_memory_keeps_it() {
        let clock = [0, 2, 4, 6, 7, 8, 9, 10, 11, 12, 13, CENTURY];
        let mut rtc = Rtc::with_clock(|| 1_000_000_000);
        let before: Vec<u8> = clock.iter().map(|index| read(&mut rtc, *index)).collect();
        for index in 0..=255 {
            for value in 0..=255 {
                assert_eq!(rtc.write(0, &[index]), Action::None);
                assert_eq!(rtc.write(1, &[value]), Action::None);
                if !clock.contains(&(index & 0x7f)) {
                    assert_eq!(read(&mut rtc, index), value);
                }
            }
        }
        let after: Vec<u8> = clock.iter().map(|index| read(&mut rtc, *index)).collect();
        assert_eq!(before, after);
    }

    #[test]
    fn the_nmi_bit_of_the_index_does_not_matter() {
        let mut rtc = Rtc::with_clock(|| 0);
        assert_eq!(read(&mut rtc, 0x80 | YEAR), 0x70);
    }

    #[test]
    fn a_word_written_to_the_index_port_sets_index_and_data() {
        let mut rtc = Rtc::with_clock(|| 0);
        assert_eq!(rtc.write(0, &[0x40, 0x99, 1, 2]), Action::None);
        let mut data = [0; 4];
        rtc.read(0, &mut data);
        assert_eq!(data, [0xff, 0x99, 0xff, 0xff]);
    }
}
