"""Online convex optimization: games, their regret with a certificate, and the papers' bounds."""

from numbelief.online import bounds as bounds
from numbelief.online import environments as environments
from numbelief.online.audit import Assumption as Assumption
from numbelief.online.bounds import Bound as Bound
from numbelief.online.comparators import *  # noqa: F403
from numbelief.online.ensemble import *  # noqa: F403
from numbelief.online.losses import *  # noqa: F403
from numbelief.online.match import *  # noqa: F403
from numbelief.online.players import *  # noqa: F403
from numbelief.online.result import *  # noqa: F403
