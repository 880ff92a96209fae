// Runs the attack suite against the shared tier.
import { attackTier } from "./suite.ts";

await attackTier("shared");
