//! Writing dates and times, as RFC 3339 has them.
#![allow(unsafe_code)]

use super::encode::{Done, Encoder};
use super::fault::Fault;
use super::{digits, option};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDate, PyDateAccess, PyDateTime, PyDelta, PyDeltaAccess, PyTime, PyTimeAccess, PyTzInfoAccess};

/// The longest text: `0001-01-01T00:00:00.000000+00:00`, and room for a store beyond it.
const LONGEST: usize = 40;
/// A zone's offset has hours and minutes: the largest one.
const LAST_MINUTE: u32 = 24 * 60 - 1;

/// A text under construction.
pub(super) struct Stamp {
    bytes: [u8; LONGEST],
    len: usize,
}

/// How far a zone is from UTC.
#[derive(Clone, Copy)]
pub(super) struct Offset {
    negative: bool,
    minutes: u32,
    is_utc: bool,
}

impl Offset {
    pub(super) const UTC: Self = Self { negative: false, minutes: 0, is_utc: true };

    /// Seconds are rounded to the nearest minute.
    fn of_seconds(seconds: i32) -> Self {
        let minutes = (seconds.unsigned_abs() + 30) / 60;
        Self { negative: seconds < 0, minutes: minutes.min(LAST_MINUTE), is_utc: seconds == 0 }
    }
}

impl Stamp {
    pub(super) fn new() -> Self {
        Self { bytes: [0; LONGEST], len: 0 }
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    fn push(&mut self, byte: u8) {
        self.bytes[self.len] = byte;
        self.len += 1;
    }

    fn pair(&mut self, value: u32) {
        // SAFETY: a slice of two bytes.
        unsafe { digits::write_pair(value, self.bytes[self.len..self.len + 2].as_mut_ptr()) };
        self.len += 2;
    }

    pub(super) fn date(&mut self, year: u32, month: u32, day: u32) {
        self.pair(year / 100);
        self.pair(year % 100);
        self.push(b'-');
        self.pair(month);
        self.push(b'-');
        self.pair(day);
    }

    pub(super) fn time(&mut self, options: u32, hour: u32, minute: u32, second: u32, micro: u32) {
        self.pair(hour);
        self.push(b':');
        self.pair(minute);
        self.push(b':');
        self.pair(second);
        if micro != 0 && options & option::OMIT_MICROSECONDS == 0 {
            self.push(b'.');
            self.pair(micro / 10_000);
            self.pair(micro / 100 % 100);
            self.pair(micro % 100);
        }
    }

    /// The letter between date and time.
    pub(super) fn separator(&mut self) {
        self.push(b'T');
    }

    /// The zone; without one UTC, if the options say so.
    pub(super) fn zone(&mut self, options: u32, offset: Option<Offset>) {
        let offset = match offset {
            Some(offset) => offset,
            None if options & option::NAIVE_UTC != 0 => Offset::UTC,
            None => return,
        };
        if options & option::UTC_Z != 0 && offset.is_utc {
            return self.push(b'Z');
        }
        self.push(if offset.negative { b'-' } else { b'+' });
        self.pair(offset.minutes / 60);
        self.push(b':');
        self.pair(offset.minutes % 60);
    }
}

impl<'py> Encoder<'_, 'py> {
    /// The text of an exact datetime, date or time; `None` for other objects.
    ///
    /// # Errors
    /// The encoder's fault is set.
    pub(super) fn stamp(&mut self, object: &Bound<'py, PyAny>) -> Option<Result<Stamp, ()>> {
        let mut stamp = Stamp::new();
        if let Ok(moment) = object.cast_exact::<PyDateTime>() {
            stamp.date(moment.get_year().unsigned_abs(), moment.get_month().into(), moment.get_day().into());
            stamp.separator();
            self.time_of(&mut stamp, moment);
            let offset = match moment.get_tzinfo() {
                Some(_) => match self.offset(moment) {
                    Ok(offset) => offset,
                    Err(error) => {
                        self.refused("Type is not JSON serializable: datetime.datetime".to_owned(), error);
                        return Some(Err(()));
                    }
                },
                None => None,
            };
            stamp.zone(self.options, offset);
        } else if let Ok(date) = object.cast_exact::<PyDate>() {
            stamp.date(date.get_year().unsigned_abs(), date.get_month().into(), date.get_day().into());
        } else if let Ok(time) = object.cast_exact::<PyTime>() {
            if time.get_tzinfo().is_some() {
                self.unfit("datetime.time must not have tzinfo set");
                return Some(Err(()));
            }
            self.time_of(&mut stamp, time);
        } else {
            return None;
        }
        Some(Ok(stamp))
    }

    fn time_of(&self, stamp: &mut Stamp, time: &impl PyTimeAccess) {
        let (hour, minute, second) = (time.get_hour().into(), time.get_minute().into(), time.get_second().into());
        stamp.time(self.options, hour, minute, second, time.get_microsecond());
    }

    /// What `utcoffset` says, which is the zone's code.
    fn offset(&mut self, moment: &Bound<'py, PyDateTime>) -> PyResult<Option<Offset>> {
        let offset = moment.call_method0(intern!(self.py, "utcoffset"))?;
        if offset.is_none() {
            return Ok(None);
        }
        let offset = offset.cast::<PyDelta>()?;
        Ok(Some(Offset::of_seconds(offset.get_days() * 86_400 + offset.get_seconds())))
    }

    /// Ends because Python code raised `error`: with `message` and the error as its cause, or with the error itself if
    /// it says that the process is in trouble or should end.
    #[cold]
    pub(super) fn refused(&mut self, message: String, error: PyErr) -> Done {
        use pyo3::exceptions::{PyException, PyMemoryError};
        let passed_on = !error.is_instance_of::<PyException>(self.py) || error.is_instance_of::<PyMemoryError>(self.py);
        self.fail(if passed_on { Fault::Raised(error) } else { Fault::Refused(message, error) })
    }
}

/// Year, month and day of a day counted from 1970-01-01, in the Gregorian calendar.
pub(super) fn civil(days: i64) -> (i64, u32, u32) {
    // Eras of 400 years that start on 1 March of the year 0.
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month as u32, day as u32)
}

/// The day, counted from 1970-01-01, on which a month starts; months are counted from January 1970.
pub(super) fn first_of_month(months: i64) -> i64 {
    let (year, month) = (1970 + months.div_euclid(12), months.rem_euclid(12) + 1);
    let year = year - i64::from(month <= 2);
    let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let day_of_year = (153 * (if month > 2 { month - 3 } else { month + 9 }) + 2) / 5;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_and_months_agree_over_the_whole_calendar() {
        let (mut year, mut month) = (1, 1);
        for months in (1 - 1970) * 12..(10_000 - 1970) * 12 {
            let first = first_of_month(months);
            assert_eq!(civil(first), (year, month, 1));
            let (before, _, last) = civil(first - 1);
            assert_eq!(before, if month == 1 { year - 1 } else { year });
            assert!((28..=31).contains(&last));
            (year, month) = if month == 12 { (year + 1, 1) } else { (year, month + 1) };
        }
        assert_eq!(civil(0), (1970, 1, 1));
        assert_eq!(civil(19_782), (2024, 2, 29));
    }
}
