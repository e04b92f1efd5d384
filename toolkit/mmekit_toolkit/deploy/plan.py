"""What is described and what is there → the requests that make the one the other; no input or output."""

from __future__ import annotations

from mmekit_toolkit.deploy.companions import Companions
from mmekit_toolkit.deploy.description import Description
from mmekit_toolkit.deploy.draft import Draft
from mmekit_toolkit.deploy.fleets import Fleets
from mmekit_toolkit.deploy.observed import Observed
from mmekit_toolkit.deploy.surroundings import Surroundings


def plan(description: Description, surroundings: Surroundings, observed: Observed) -> Draft:
    """Return what is to be done.

    The order: what fleets need, what watches them, the end of autoscaling where it would refuse the change,
    the fleets, their autoscaling, and last the end of what the file does not have any more. What a local
    endpoint has not is left out.
    """
    draft = Draft(observed.serving is not None)
    fleets = Fleets(description, surroundings, observed, draft)
    companions = Companions(description, observed, draft)
    if not surroundings.local:
        companions.add_private_link(surroundings.region)
    fleets.define()
    companions.set_alarms()
    companions.end_scaling()
    fleets.bring()
    if not surroundings.local:
        companions.scale()
    companions.delete_old_alarms()
    fleets.tag()
    return draft
