// The even seeds.
import { campaign } from "./half.ts";

campaign(0);
