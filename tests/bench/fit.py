"""Published sweeps, of each two runs given to ``autotune fit``: what it says of the others, and what its pick loses."""

from tests.published.fits import fits, summary


def main() -> None:
    """A line per run that was held out, then the figures of all."""
    for found in fits():
        for one in found.held_out:
            low, high = one.low_s / one.fitted_s - 1, one.high_s / one.fitted_s - 1
            print(
                f"  {one.sweep[:46]:46}  b = {one.b}  {one.step_s:7.2f} s  fitted {one.fitted_s:7.2f} s"
                f"  {one.error:+6.1%}  interval {low:+.1%} to {high:+.1%}{'' if one.is_covered else '  missed'}"
            )
        print(f"  {'':46}  recommended b = {found.recommended}, loses {found.regret:.1%}")
    runs, error, within, covered, regret = summary()
    print(
        f"  {runs} runs held out: median error {error:.1%} (goal 2 %), {within:.0%} within 8 % (goal 90 %),"
        f" {covered:.0%} inside the 90 % interval (goal 80 to 97 %), mean regret {regret:.2%} (goal 0.5 %)"
    )
