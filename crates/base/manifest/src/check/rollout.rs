//! `[service.NAME.rollout]`: which keys go with which strategy.

use super::Checker;
use crate::mistake::short;
use crate::raw::{
    At, CANARY_MAX_ERROR_RATE_DEFAULT, CANARY_MIN_REQUESTS_DEFAULT, CANARY_SHARE_DEFAULT,
    KEEP_DEFAULT, RawRollout, RawService, STRATEGY_DEFAULT,
};
use crate::rollout::{Batches, BlueGreen, Canary, Rollout};
use crate::text::{Wrong, duration, share, wrong};
use std::ops::Range;
use std::time::Duration;

const DAY: Duration = Duration::from_hours(24);

#[derive(Clone, Copy, PartialEq)]
enum Strategy {
    Rolling,
    Canary,
    BlueGreen,
}

impl Checker<'_> {
    pub(super) fn rollout(&mut self, service: &RawService) -> Rollout {
        let Some(raw) = service.rollout.as_ref().map(|at| &at.value) else {
            return Rollout::Rolling;
        };
        let said = self.text(raw.strategy.as_ref(), strategy);
        let said = said.unwrap_or(Strategy::Rolling);
        self.of_other_strategies(raw, said);
        let batch = raw.batch.as_ref();
        let by_stages = match said {
            Strategy::Rolling => batch.map(|at| &at.span),
            Strategy::Canary | Strategy::BlueGreen => raw.strategy.as_ref().map(|at| &at.span),
        };
        if let Some(span) = by_stages {
            self.cannot_be_two(service, span);
        }
        match said {
            Strategy::Rolling => match self.text_of(batch, |text| share(&text.0)) {
                Some(share) => Rollout::Batches(Batches { share }),
                None => Rollout::Rolling,
            },
            Strategy::Canary => Rollout::Canary(self.canary(raw)),
            Strategy::BlueGreen => Rollout::BlueGreen(BlueGreen {
                keep: self.duration(raw.keep.as_ref(), KEEP_DEFAULT, Duration::ZERO..=DAY),
            }),
        }
    }

    fn canary(&mut self, raw: &RawRollout) -> Canary {
        let default = |text: &str| share(text).unwrap_or(0.1);
        let spans = Duration::from_secs(1)..=DAY;
        let good_for = self.text_of(raw.good_for.as_ref(), |text| match text.as_str() {
            "manual" => Ok(None),
            text => duration(text, &spans).map(Some),
        });
        let limits = Duration::from_millis(1)..=Duration::from_hours(1);
        Canary {
            share: self
                .text_of(raw.share.as_ref(), |text| share(&text.0))
                .unwrap_or_else(|| default(CANARY_SHARE_DEFAULT)),
            good_for: good_for.flatten(),
            max_error_rate: self
                .text_of(raw.max_error_rate.as_ref(), |text| share(&text.0))
                .unwrap_or_else(|| default(CANARY_MAX_ERROR_RATE_DEFAULT)),
            max_latency: self.text_of(raw.max_latency.as_ref(), |text| duration(&text.0, &limits)),
            min_requests: raw
                .min_requests
                .as_ref()
                .map_or(CANARY_MIN_REQUESTS_DEFAULT, |at| at.value)
                .into(),
        }
    }

    fn of_other_strategies(&mut self, raw: &RawRollout, said: Strategy) {
        let canary: [(&str, Option<&Range<usize>>); 5] = [
            ("share", raw.share.as_ref().map(|at| &at.span)),
            ("for", raw.good_for.as_ref().map(|at| &at.span)),
            (
                "max_error_rate",
                raw.max_error_rate.as_ref().map(|at| &at.span),
            ),
            ("max_latency", raw.max_latency.as_ref().map(|at| &at.span)),
            ("min_requests", raw.min_requests.as_ref().map(|at| &at.span)),
        ];
        let mut found: Vec<(&Range<usize>, String, &str)> = Vec::new();
        if said != Strategy::Canary {
            let given = canary
                .iter()
                .filter_map(|(key, span)| Some((*key, (*span)?)));
            found.extend(given.map(|(key, span)| {
                let told = format!("`{key}` is of a canary only");
                (span, told, "write `strategy = \"canary\"`, or leave it out")
            }));
        }
        if let (true, Some(keep)) = (said != Strategy::BlueGreen, &raw.keep) {
            let told = "`keep` is of blue-green only".to_owned();
            let help = "write `strategy = \"blue-green\"`, or leave it out";
            found.push((&keep.span, told, help));
        }
        if let (true, Some(batch)) = (said != Strategy::Rolling, &raw.batch) {
            let told = "`batch` is of rolling only".to_owned();
            let help = "write `strategy = \"rolling\"`, or leave it out";
            found.push((&batch.span, told, help));
        }
        for (span, message, help) in found {
            self.report(span, wrong("conflict", message, help));
        }
    }

    /// What has one replica of itself cannot have two generations at once.
    fn cannot_be_two(&mut self, service: &RawService, span: &Range<usize>) {
        let run = service.run.as_ref().map(|run| &run.value);
        let singleton = is_true(service.singleton.as_ref());
        let told = match run {
            Some(run) if run.actor.is_some() => "an actor cannot run in two generations at once",
            _ if singleton => "a singleton cannot run in two generations at once",
            Some(run) if run.wasm.is_some() => {
                "a component runs in the edge of each request, not as replicas of two generations"
            }
            _ => return,
        };
        let help = "leave `rollout` out: it is rolled over node by node";
        self.report(span, wrong("conflict", told, help));
    }
}

fn is_true(field: Option<&At<bool>>) -> bool {
    field.is_some_and(|it| it.value)
}

fn strategy(text: &str) -> Result<Strategy, Wrong> {
    match text {
        STRATEGY_DEFAULT => Ok(Strategy::Rolling),
        "canary" => Ok(Strategy::Canary),
        "blue-green" => Ok(Strategy::BlueGreen),
        other => {
            let message = format!("`{}` is no strategy of a rollout", short(other));
            let help = "write `rolling`, `canary` or `blue-green`";
            Err(wrong("strategy", message, help))
        }
    }
}
