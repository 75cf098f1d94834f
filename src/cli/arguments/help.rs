//! The longer texts of `--help`: examples, and what the columns of a table mean.

pub(super) const EXPLAIN_HELP: &str = "\
The request is told by its parts, or by a curl command that would send it. Everything behind --curl
belongs to that command, so it stands last; a whole command in quotes will do, too:

  graygate explain 10.1.2.3 --host shop.example.com --path /cart --cookie uid=4711
  graygate explain --curl curl 'https://shop.example.com/cart' -H 'Cookie: uid=4711'
";

pub(super) const ENTRIES_HELP: &str = "\
An entry of several terms, or with a blank in it, is one argument:

  graygate admit 10.1.2.3 10.2.0.0/16 'cookie:uid=4711' 'header:X-Team=qa until=2027-01-31T00:00Z'
  graygate remove 10.1.2.3";

pub(super) const STAGE_HELP: &str = "\
Whoever is in a share stays in it when it grows. The first share of another new version falls to others than
that of the version before: it gets a new salt.

  graygate stage 5% --by-cookie uid
  graygate stage 25%                   # the same cookie
  graygate stage 0%";

pub(super) const ROLLOUT_HELP: &str = "\
A gateway carries it on: a step is taken when its time is over and the verdict finds the new version good
enough. A version that is taken back ends it.

  graygate rollout start --steps 1,5,25,50,100 --every 10m --by-cookie uid --promote
  graygate rollout status
  graygate rollout abort";

pub(super) const PEERS_HELP: &str = "\
One line for each server (peer) of each pool:

  WEIGHT    how much it is asked, compared with the others
  STATE     up         it has its share of the requests
            starting   it is back, with a share that grows ([upstream] slow_start)
            out        it is left alone; why, and for how long. `trial due`: the next request that may
                       be risked is its trial. `asked all the same`: too many others are out
                       ([upstream] max_out), so it is asked with a tenth of its share
            trial      one request is to show how it does now
            unchecked  it gets nothing before its first health check has succeeded
  OUTS      how often in a row it went out; each time for twice as long
  ACTIVE    requests under way
  ANSWERED  attempts that have ended well since it was listed
  FAILED    attempts that have failed, and how
  MEDIAN, P99
            time to the head of a response, in the last minute; - when there was none

A server in both pools is one server: what was counted of it stands in both lines.";

pub(super) const VERDICT_HELP: &str = "\
First a sentence, then a line for failures and one for slowness, with the numbers of all gateways:

  FINDING   nothing      nothing can be said yet
            good-enough  good enough for the next step of a release
            suspect      likely worse: the evidence is 20 or more, and no reason to act yet
            worse        worse; with [verdict] mode = enforce it is taken back
            incident     both versions fail far more than usual: nothing is concluded
  PRE, PROD failed requests of those that count: of each client the first in a second, until its
            first failure
  ODDS      how many times as high the odds of failing are in pre
  EVIDENCE  how many to one, and how much makes it worse: 1 divided by [verdict] alpha
  CLIENTS   clients behind the failures of pre, as far as they are known
  GATEWAYS  how many gateways add to it, by their heartbeats";

pub(super) const COMPLETIONS_HELP: &str = "\
Where the shells look for it:

  bash  graygate completions bash >/usr/share/bash-completion/completions/graygate
  zsh   graygate completions zsh >/usr/share/zsh/vendor-completions/_graygate
  fish  graygate completions fish >/usr/share/fish/vendor_completions.d/graygate.fish";

pub(super) const MAN_HELP: &str = "\
To read it:      graygate man | man -l -
To install it:   graygate man --out /usr/share/man/man8";
