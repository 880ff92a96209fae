// The odd seeds.
import { campaign } from "./half.ts";

campaign(1);
