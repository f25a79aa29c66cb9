"""A look at a user's model for the controller, which runs nothing of the user's: in a process of its own."""

import logging
import os
import sys
import warnings
from dataclasses import asdict
from typing import Any

from autotune.records.job.workload import ModelRequest
from autotune.records.plain import decode


def looked_at(request: dict[str, Any]) -> dict[str, Any]:
    """Return a ``model``, or a ``refusal`` in words. What the user's code prints goes nowhere: stdout carries the
    result of a command."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout.fileno(), sys.stderr.fileno()):
        os.dup2(nowhere, stream)
    os.close(nowhere)
    warnings.simplefilter("ignore")
    logging.disable()
    from autotune.workload.look import look
    from autotune.workload.user.refusal import ModelRefused, words_of

    try:
        return {"model": asdict(look(decode(ModelRequest, request)))}
    except ModelRefused as error:
        return {"refusal": str(error)}
    except (Exception, SystemExit) as error:
        return {"refusal": f"looking at it failed: {words_of(error)}"}
