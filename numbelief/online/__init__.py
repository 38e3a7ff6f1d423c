"""Online convex optimization: games, their regret with a certificate, and the papers' bounds."""

from numbelief.online import environments as environments
from numbelief.online.bounds import Assumption as Assumption
from numbelief.online.bounds import Bound as Bound
from numbelief.online.comparators import *  # noqa: F403
from numbelief.online.ensemble import *  # noqa: F403
from numbelief.online.losses import *  # noqa: F403
from numbelief.online.play import *  # noqa: F403
