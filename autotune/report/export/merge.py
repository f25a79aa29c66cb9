"""A user's own config file, made to run a plan: only the lines of our keys change, and what that means is said."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autotune.errors import InputError, UsageError
from autotune.records.complaint import yaml_fault
from autotune.report.export.edit.document import Document, KeyPath, Language, has_path, with_value, without
from autotune.report.export.edit.splice import remove, set_value
from autotune.report.export.kinds import foreign
from autotune.report.export.plan import Plan
from autotune.report.export.rules import (
    FILE_RULES,
    Conflict,
    FileRules,
    Values,
    count_of,
    is_there,
    product_of,
    value_of,
)
from autotune.report.export.target import Settings, Target

MARK = "\ufeff"
LANGUAGES = {".json": Language.JSON, ".toml": Language.TOML}


@dataclass(frozen=True)
class ConfigFile:
    """A file of a launcher: what it is, and what may be changed in it. ``mark``: the byte order mark that it has."""

    path: Path
    document: Document
    rules: FileRules
    mark: str

    @property
    def values(self) -> Values:
        """The values by our spelling of the keys."""
        values = self.document.values
        return {key.replace("-", "_"): value for key, value in values.items()} if self.rules.has_dashes else values

    def path_of(self, dotted: str) -> KeyPath:
        """Return the way to a key, in the file's spelling."""
        names = tuple(dotted.split("."))
        if not self.rules.has_dashes or has_path(self.document.values, names[:1]):
            return names
        dashed = (names[0].replace("_", "-"), *names[1:])
        is_dashed = any("-" in key for key in self.document.values)
        return dashed if has_path(self.document.values, dashed[:1]) or is_dashed else names


def open_config(path: Path, target: Target, plan: Plan, version: str | None) -> ConfigFile:
    """Return a config file of the launcher in which the plan can be set.

    Raise UsageError where the launcher reads none with that suffix; InputError for a file that cannot be read, that is
    of another launcher or generation, or whose keys say what no pipeline runs with.
    """
    if reason := target.file_refusal(path.suffix, version):
        raise UsageError(f"--merge: {reason} (given: {path})")
    try:
        text = path.read_bytes().decode()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise InputError(f"--merge: cannot read {path}: {reason}") from None
    mark = MARK if text.startswith(MARK) else ""
    document = Document(LANGUAGES.get(path.suffix, Language.YAML), text.removeprefix(MARK))
    try:
        document.root, document.values  # noqa: B018  read now, so that what is wrong with the file is said of the file
    except Exception as error:  # each parser has its own
        raise InputError(f"--merge: {path} is not {path.suffix[1:].upper()}: {yaml_fault(error)}") from None
    rules = FILE_RULES[target.name]
    if other := foreign(document, rules.kind):
        raise InputError(f"--merge: {path} cannot be exported to {target.title}: {other}")
    file = ConfigFile(path, document, rules, mark)
    if clash := [clause(file, one) for one in rules.refused if applies(file, one, plan)]:
        raise InputError(f"--merge: {path}: {'; '.join(clash)}")
    return file


def replicas_in(file: ConfigFile, plan: Plan, given: int | None, measured: int | None = None) -> tuple[int, list[str]]:
    """Return the number of replicas: what is ``given`` by the user, else what the file says, else those of what was
    ``measured``, else 1; and notes on it.

    Raise InputError where the file's ranks are no multiple of the ranks of one replica, and nothing is given.
    """
    name, found = file.path.name, None
    if ranks := ranks_in(file, plan):
        total, each, keys = ranks
        if given is not None:
            words = f"{keys} in {name} is {total}, and {given} replicas of {each} ranks take {given * each}"
            return given, [words] if total != given * each else []
        if total % each:
            raise InputError(
                f"--merge: {file.path}: {keys} is {total}, no multiple of the {each} ranks of a replica; change it, or"
                " give --data-parallel"
            )
        found = total // each, f"{keys} {total} / {each} ranks of a replica"
    found = found or stated_replicas(file) or batch_replicas(file)
    if given is not None:
        return given, []
    if found is None:
        taken = f"{measured or 1} {'as measured ' if measured else ''}is taken"
        return measured or 1, [f"{name} does not say how many replicas there are; {taken}: --data-parallel says others"]
    return found[0], [f"data-parallel replicas: {found[0]}, from {name} ({found[1]})"]


def ranks_in(file: ConfigFile, plan: Plan) -> tuple[int, int, str] | None:
    """Return all ranks in a file, the ranks of one replica, and the keys that say so; None where they do not."""
    ranks = file.rules.ranks
    if ranks is None or not is_there(file.values, ranks.total[0]):
        return None
    total = product_of(file.values, ranks.total, 1)
    others = product_of(file.values, ranks.others, 1)
    if total is None or others is None:
        return None
    return total, plan.stages * others, " x ".join(key for key in ranks.total if is_there(file.values, key))


def stated_replicas(file: ConfigFile) -> tuple[int, str] | None:
    """Return the replicas that keys of the file state, and these."""
    there = [key for key in file.rules.replicas if is_there(file.values, key)]
    count = product_of(file.values, file.rules.replicas, 1)
    return (count, " x ".join(there)) if there and count is not None else None


def batch_replicas(file: ConfigFile) -> tuple[int, str] | None:
    """Return the replicas that follow from the batch, the micro-batch size and m that the file had, and these."""
    if file.rules.batch is None:
        return None
    counts = [count_of(file.values, key) for key in file.rules.batch]
    whole, size, number = counts
    if whole is None or size is None or number is None or whole % (size * number):
        return None
    count = whole // (size * number)
    return count, f"its {file.rules.batch[0]} {whole} = {size} x {number} x {count}"


def settings_in(file: ConfigFile, target: Target, plan: Plan, version: str | None) -> Settings:
    """Return the keys of a file, which of some launchers are others than the flags."""
    told = target.settings_of(plan, version)
    if file.rules.settings is None:
        return told
    flags = target.settings(plan, target.word(plan) or "", version or target.default_version)
    return file.rules.settings(plan, target.word(plan) or "") | {
        key: value for key, value in told.items() if key not in flags
    }


def merged(file: ConfigFile, plan: Plan, settings: Settings) -> tuple[str, list[str]]:
    """Return the text of the file with these keys set and what contradicts them removed, and notes on that.

    Raise InputError where a key cannot be changed alone.
    """
    gone = [one for one in file.rules.dropped if one.key not in settings and applies(file, one, plan)]
    wanted = {
        key: value
        for key, value in settings.items()
        if is_there(file.values, key) or (value is not None and key not in file.rules.only_if_there)
    }
    text = edited(file, wanted, [one.key for one in gone])
    notes = [f"removed {clause(file, one)}" for one in gone]
    if file.rules.one_place and (added := [key for key in wanted if not is_there(file.values, key)]):
        notes.append(f"added {', '.join(added)}: {file.rules.one_place}")
    notes += [clause(file, one) for one in file.rules.said if applies(file, one, plan)]
    return file.mark + text, notes + list(differences(file, plan))


def applies(file: ConfigFile, conflict: Conflict, plan: Plan) -> bool:
    """Return True where a key is in the file with a value that contradicts the plan."""
    value = value_of(file.values, conflict.key)
    return value is not None and conflict.holds(value, plan)


def clause(file: ConfigFile, conflict: Conflict) -> str:
    """Return a key with its value, and why it cannot stay."""
    shown = str(value_of(file.values, conflict.key))
    return f"{conflict.key} ({shown if len(shown) < 60 else shown[:60] + '…'}): {conflict.why}"


def differences(file: ConfigFile, plan: Plan) -> list[str]:
    """Return where the job in the file is another than the one that was measured."""
    facts = ((file.rules.seq_len, plan.workload.seq_len, "tokens"), (file.rules.layers, plan.workload.layers, "layers"))
    notes = []
    for keys, measured, what in facts:
        for key in keys:
            given = count_of(file.values, key)
            if given is not None and measured is not None and given != measured:
                notes.append(f"{key} in {file.path.name} is {given}, and {measured} {what} were measured")
    return notes


def edited(file: ConfigFile, settings: Settings, gone: list[str]) -> str:
    """Return the text with keys set and removed, one by one, having read it again and found nothing else changed."""
    document, expected = file.document, file.document.values
    try:
        for dotted in gone:
            path = file.path_of(dotted)
            document, expected = document.with_text(remove(document, path)), without(expected, path)
        for dotted, value in settings.items():
            path = file.path_of(dotted)
            if value is None and document.language is Language.TOML:  # which has no null
                document, expected = document.with_text(remove(document, path)), without(expected, path)
            else:
                text = set_value(document, path, value, neighbour(file, document, settings, dotted))
                document, expected = document.with_text(text), with_value(expected, path, value)
            if not alike(document.values, expected):
                raise ValueError(f"{dotted} cannot be changed alone")
        if not alike(document.values, expected):
            raise ValueError(f"{', '.join(gone)} cannot be removed alone")
    except Exception as error:  # what was spliced may be nothing that its parser takes
        reason = f"--merge: {file.path}: {yaml_fault(error)}"
        raise InputError(reason if "no table" in reason else f"{reason}: change it by hand") from None
    return document.text


def alike(one: Any, other: Any) -> bool:
    """Return True for the same values, a table without keys being as good as null."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(alike(one[key], other[key]) for key in one)
    return (one in ({}, None) and other in ({}, None)) or (type(one) is type(other) and bool(one == other))


def neighbour(file: ConfigFile, document: Document, settings: Settings, dotted: str) -> str | None:
    """Return the key of ours after which a new one is best put: the one before it in the same table, or the one
    behind it."""
    parent = file.path_of(dotted)[:-1]
    order = list(settings)
    at = order.index(dotted)
    for other in (*reversed(order[:at]), *order[at + 1 :]):
        path = file.path_of(other)
        if path[:-1] == parent and has_path(document.values, path):
            return path[-1]
    return None
